"""The default video model in files: both sides have the same, symbols come from integers, weights files, training."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import clip, info
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tiny
from latens import format as ltn
from latens.codec.video import CodedFrame, VideoCodec
from latens.convert.video import motion_tables
from latens.errors import ChecksumError, CoderError, FormatError, ModelError, UnknownModelError, VideoError
from latens.models.video import LatensVideo, LatensVideoConfig
from latens.models.video.motion import REACH, compensate, search
from latens.runtime.motion import MotionCoder
from latens.zoo import float_weights
from latens.zoo.video_weights import load_video, save_video

CONFIG = LatensVideoConfig(context_blocks=1, picture_blocks=1)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> float_weights.LoadedModel:
    path = tmp_path_factory.mktemp("image") / "tiny.safetensors"
    float_weights.save(tiny.network(), path, "tiny")
    return float_weights.load(path)


def network(image: float_weights.LoadedModel) -> LatensVideo:
    """Weights that start like those of the image model; what starts at zero gets random ones."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(3)
        model = LatensVideo(image.base, CONFIG)
        for part in (model.temporal, model.gate_0, model.gate_1, model.blend_out):
            part.weight.normal_(0.0, 0.02)
        for name, parameter in model.named_parameters():
            if name.endswith(("pw_out.weight", "ffn_out.weight")):
                parameter.normal_(0.0, 0.02)
    return model.eval()


@pytest.fixture(scope="module")
def weights(image: float_weights.LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "video.safetensors"
    save_video(network(image), path, "tiny-video", image=image)
    return path


@pytest.fixture(scope="module")
def codec(weights: Path) -> VideoCodec:
    return VideoCodec(weights)


def coded(
    codec: VideoCodec, count: int, about: object = None, **options: object
) -> tuple[bytes, list[CodedFrame]]:
    about = about or info()
    file = io.BytesIO()
    found = list(codec.encode(about, clip(about, count), file, **options))  # type: ignore[arg-type]
    return file.getvalue(), found


def decoded(codec: VideoCodec, data: bytes, **options: object) -> list[object]:
    reader = ltn.VideoReader(io.BytesIO(data), on_error=options.get("on_error", "raise"))  # type: ignore[arg-type]
    return list(codec.decode(reader, **options))  # type: ignore[arg-type]


_OTHER = """
import json, sys, torch
from latens import format as ltn
from latens.codec.video import VideoCodec
torch.set_num_threads(3)
torch.backends.mkldnn.enabled = False
frames = VideoCodec(sys.argv[1]).decode(ltn.VideoReader(open(sys.argv[2], "rb")))
print(json.dumps([frame.frame.planes[0].astype(int).tolist() for frame in frames]))
"""


class TestMotion:
    def test_a_shift_is_found(self) -> None:
        # Between blocks of a smooth pattern that is moved by whole and half pixels, nothing is left.
        fine = torch.from_numpy(tiny.picture(420, 420)).permute(2, 0, 1)[None] / 255.0
        fine = torch.nn.functional.avg_pool2d(fine, 5, 1, 2)
        before = fine[:, :, 64:320:2, 64:320:2]
        for dy, dx in ((0, 0), (6, -10), (3, 1), (-60, 14)):
            now = fine[:, :, 64 + dy : 320 + dy : 2, 64 + dx : 320 + dx : 2]
            vectors = search(now, before, 0.1)
            inner = vectors[0, :, 2:-2, 2:-2] if abs(dy) < 40 else vectors[0, :, 4:-1, 2:-2]
            assert (inner.reshape(2, -1).median(1).values == torch.tensor([dy, dx])).all()
            assert vectors.abs().max() <= REACH

    @given(hnp.arrays(np.int16, (2, 3, 4), elements=st.integers(-REACH, REACH)))
    @settings(max_examples=20, deadline=None)
    def test_compensation_by_an_independent_rule(self, vectors: np.ndarray) -> None:
        reference = np.random.default_rng(0).random((48, 64))
        got = compensate(torch.from_numpy(reference)[None, None], torch.from_numpy(vectors)[None])[0, 0]
        taps = np.array([1, -5, 20, 20, -5, 1]) / 32

        def at(y: float, x: float) -> float:
            ys = (
                [(int(y), 1.0)]
                if y == int(y)
                else [(int(np.floor(y)) + i - 2, t) for i, t in enumerate(taps)]
            )
            xs = (
                [(int(x), 1.0)]
                if x == int(x)
                else [(int(np.floor(x)) + i - 2, t) for i, t in enumerate(taps)]
            )
            clamped = [
                (min(max(a, 0), 47), min(max(b, 0), 63), s * t) for a, s in ys for b, t in xs
            ]  # fmt: skip
            return sum(reference[a, b] * weight for a, b, weight in clamped)

        for row, column in ((0, 0), (17, 40), (47, 63), (31, 16)):
            dy, dx = vectors[:, row // 16, column // 16] / 2
            assert got[row, column].item() == pytest.approx(at(row + dy, column + dx), abs=1e-9)

    @given(hnp.arrays(np.int16, (2, 3, 5), elements=st.integers(-REACH, REACH)))
    @settings(max_examples=30, deadline=None)
    def test_vectors_survive(self, vectors: np.ndarray) -> None:
        coder = MotionCoder(motion_tables(), REACH)
        stream, lanes = coder.encode(vectors)
        assert np.array_equal(coder.decode(stream, lanes, (3, 5)), vectors)

    def test_still_is_nearly_free(self) -> None:
        stream, _ = MotionCoder(motion_tables(), REACH).encode(np.full((2, 30, 40), 3, np.int16))
        assert len(stream) <= 24

    def test_damage(self) -> None:
        coder = MotionCoder(motion_tables(), REACH)
        stream, lanes = coder.encode(np.full((2, 3, 5), 9, np.int16))
        with pytest.raises(CoderError):
            coder.decode(stream[:-4], lanes, (3, 5))
        with pytest.raises(CoderError, match="longer"):
            coder.decode(*coder.encode(np.full((2, 3, 5), REACH + 1, np.int16)), (3, 5))


class TestFiles:
    @pytest.mark.parametrize(
        "about", [info(), info(1, 1), info(66, 130, chroma="4:4:4", bit_depth=10)], ids=lambda a: f"{a.width}"
    )
    def test_decoder_has_what_the_encoder_has(self, codec: VideoCodec, about: object) -> None:
        data, found = coded(codec, 6, about, gop=4, quality=40)
        frames = decoded(codec, data)
        assert [f.key for f in frames] == [True, False, False, False, True, False]
        for a, b in zip(found, frames, strict=True):
            for x, y in zip(a.frame.planes, b.frame.planes, strict=True):
                assert np.abs(x.astype(int) - y).max() <= 1
                assert (x != y).mean() < 0.01

    def test_quality(self, codec: VideoCodec) -> None:
        sizes = [len(coded(codec, 2, quality=q)[0]) for q in (0, 50, 100)]
        assert sizes == sorted(sizes)
        assert len(coded(codec, 2)[0]) == sizes[1]
        with pytest.raises(VideoError, match="0 and 100"):
            coded(codec, 1, quality=101)

    def test_symbols_do_not_depend_on_the_pictures(
        self, codec: VideoCodec, image: float_weights.LoadedModel
    ) -> None:
        data, _ = coded(codec, 5, gop=5)
        other = VideoCodec(codec.model)
        # Floats of another machine: far more different than any are.
        with torch.no_grad():
            twin = network(image)
            twin.temporal.bias.add_(1e-3)
            twin.blend_out.bias.add_(1e-3)
        other = VideoCodec(replace(codec.model, network=twin))
        for a, b in zip(decoded(codec, data), decoded(other, data), strict=True):
            assert np.abs(a.frame.planes[0].astype(int) - b.frame.planes[0]).max() <= 8

    def test_no_drift(self, codec: VideoCodec, weights: Path, tmp_path: Path) -> None:
        """Four groups of 30 frames, decoded by another process in another configuration."""
        path = tmp_path / "clip.ltn"
        data, found = coded(codec, 120, info(16, 16), gop=30)
        path.write_bytes(data)
        command = [sys.executable, "-c", _OTHER, str(weights), str(path)]
        lumas = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        # That it decodes says that all symbols are the same: each frame has their checksum.
        assert len(lumas) == 120
        for a, b in zip(lumas, found, strict=True):
            assert np.abs(np.array(a) - b.frame.planes[0]).max() <= 2
        with pytest.raises(VideoError, match="at most 32"):
            coded(codec, 1, gop=33)

    def test_damage_is_concealed(self, codec: VideoCodec) -> None:
        data, _ = coded(codec, 6, gop=3)
        frames = list(ltn.VideoReader(io.BytesIO(data)).frames())
        header = ltn.VideoReader(io.BytesIO(data)).header
        stream = frames[1].streams[0]
        for change, error in (
            ({"checksum": 1}, ChecksumError),
            ({"streams": (stream, stream, stream)}, FormatError),
            ({"streams": (stream._replace(data=b""),)}, CoderError),
        ):
            file = io.BytesIO()
            writer = ltn.VideoWriter(file, header)
            for number, frame in enumerate(frames):
                writer.add(frame._replace(**change) if number == 1 else frame)
            writer.finish(1000)
            with pytest.raises(error, match="frame 1"):
                decoded(codec, file.getvalue())
            assert [f.number for f in decoded(codec, file.getvalue(), on_error="conceal")] == [0, 3, 4, 5]


class TestWeights:
    def test_the_same_weights_make_the_same_file(
        self, image: float_weights.LoadedModel, weights: Path, tmp_path: Path
    ) -> None:
        save_video(network(image), tmp_path / "again.safetensors", "tiny-video", image=image)
        assert (tmp_path / "again.safetensors").read_bytes() == weights.read_bytes()
        loaded = load_video(weights)
        assert loaded.id == "tiny-video"
        assert loaded.network.image.config == tiny.CONFIG

    def test_bad_files(self, image: float_weights.LoadedModel, weights: Path, tmp_path: Path) -> None:
        data = weights.read_bytes()
        for number, bad in enumerate(
            (
                data[: len(data) // 2],
                data.replace(b"latens-video", b"latens-vidio"),
                data.replace(b'\\"picture_blocks\\": 1', b'\\"picture_blocks\\": 9'),
                data.replace(b"network.gate_0.bias", b"network.gate_9.bias"),
                data.replace(b"entropy.motion.sizes", b"entropy.motion.sizzz"),
                data.replace(b'"image":', b'"imago":'),
            )
        ):
            assert bad != data
            path = tmp_path / f"bad{number}.safetensors"
            path.write_bytes(bad)
            with pytest.raises((ModelError, UnknownModelError)):
                load_video(path)
        with pytest.raises(ModelError, match="image"):
            save_video(network(image), tmp_path / "new.safetensors", "tiny-video")
        with pytest.raises(ModelError, match="range"):
            LatensVideoConfig(context_blocks=-1)


def test_training_pass(image: float_weights.LoadedModel) -> None:
    model = network(image).train()
    frames = torch.rand(2, 3, 3, 64, 64)
    out = model(frames, torch.tensor([0.2, 0.8]))
    assert [x.shape for x in out["x_hat"]] == [(2, 3, 64, 64)] * 2
    bits = sum(-torch.log2(p).sum() for found in out["likelihoods"] for p in found.values())
    error = sum((x - frames[:, t]).square().mean() for t, x in enumerate(out["x_hat"], 1))
    (bits + 1e4 * error).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    assert all(p.grad is None for p in model.image.parameters())
    assert not any("image" in name for name in model.state_dict())
