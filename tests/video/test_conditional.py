"""The default video model: in files, the same everywhere, against its rules spelled out; weights files; training."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import slow_motion
import torch
from clips import clip, info
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from latens import format as ltn
from latens import zoo
from latens.codec.structure import Structure
from latens.codec.video import CodedFrame, VideoCodec
from latens.entropy_coding import LaneDecoder
from latens.errors import (
    ChecksumError,
    CoderError,
    ModelError,
    ShapeError,
    VideoError,
)
from latens.models.video import LatensVideo, LatensVideoConfig
from latens.runtime import motion
from latens.runtime.motion import REACH
from latens.runtime.picture import Z_MAX
from latens.zoo.cards import card
from latens.zoo.weights import load_video

CONFIG = LatensVideoConfig(context_blocks=1, picture_blocks=1)


def network() -> LatensVideo:
    """Weights that start like those of the tiny image model; branches get random ones."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(3)
        model = LatensVideo(tiny.network(), CONFIG)
        for part in (model.temporal, model.gate_0, model.gate_1, model.blend_out):
            part.weight.normal_(0.0, 0.02)
        for name, parameter in model.named_parameters():
            if name.endswith(("pw_out.weight", "ffn_out.weight")):
                parameter.normal_(0.0, 0.02)
    return model.eval()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "video.safetensors"
    zoo.save(network(), path, "tiny-video")
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


def digest(frames: list[object]) -> str:
    """Of all planes."""
    found = hashlib.sha256()
    for frame in sorted(frames, key=lambda frame: frame.number):
        for plane in frame.frame.planes:
            found.update(np.ascontiguousarray(plane).data)
    return found.hexdigest()


_OTHER = """
import hashlib, sys
import numpy as np
from latens import format as ltn
from latens.codec.video import VideoCodec
from latens.runtime import set_threads
set_threads(int(sys.argv[3]))
found = hashlib.sha256()
for frame in VideoCodec(sys.argv[1]).decode(ltn.VideoReader(open(sys.argv[2], "rb"))):
    for plane in frame.frame.planes:
        found.update(np.ascontiguousarray(plane).data)
print(found.hexdigest(), "torch" in sys.modules)
"""


def pictures(height: int, width: int, seed: int = 0) -> np.ndarray:
    return tiny.picture(height, width, seed=seed).astype(np.uint16) * 257


@st.composite
def fields(draw: st.DrawFn, references: int = 2) -> motion.Field:
    """Any blocks, with near or far vectors, many of them alike."""
    return slow_motion.any_field(draw(st.randoms(use_true_random=False)), references)


def noise(field: motion.Field, seed: int) -> np.ndarray:
    shape = 8 * field.shape[0], 8 * field.shape[1], 3
    return np.random.default_rng(seed).choice([0, 1, 30_000, 65_535], shape).astype(np.uint16)


class TestMotion:
    @pytest.mark.parametrize("shift", [(0, 0), (12, -20), (3, 1), (-90, 14), (6, 255), (-2, 3)])
    def test_a_shift_is_found(self, shift: tuple[int, int]) -> None:
        """A smooth pattern that is moved by quarters of pixels: nearly all blocks have its vector."""
        dy, dx = shift
        fine = torch.from_numpy(tiny.picture(1100, 1300)).permute(2, 0, 1)[None].float()
        for _ in range(2):
            fine = torch.nn.functional.avg_pool2d(fine, 9, 1, 4)
        fine = (257 * fine[0].permute(1, 2, 0).numpy()).astype(np.uint16)
        before, now = (
            np.ascontiguousarray(fine[100 + y : 868 + y : 4, 260 + x : 1028 + x : 4])
            for y, x in ((0, 0), shift)
        )
        field = motion.search(now, [before], 1.0)
        inside = field[6:-6, 8:-8] if abs(dx) < 100 else field[6:-6, :-9]
        assert np.median(inside[..., 2:4].reshape(-1, 2), 0).tolist() == [dy, dx]
        assert np.array_equal(field[..., 4:], np.zeros_like(field[..., 4:]))
        stream = motion.encode(field, 1)
        assert len(stream) < (60 if max(abs(dy), abs(dx)) < 40 else 300)
        assert np.array_equal(motion.decode(stream, (192, 192), 1), field)

    def test_two_references(self) -> None:
        """Halves that are in one reference each; and one that is the mean of both."""
        first, second = (tiny.picture(128, 128).astype(np.uint16) * 257 for _ in range(2))
        second = np.ascontiguousarray(second[::-1])
        now = first.copy()
        now[:, 64:] = second[:, 64:]
        field = motion.search(now, [first, second], 2.0)
        assert (field[2:-2, :7, 1] == 1).mean() > 0.9
        assert (field[2:-2, 9:, 1] == 2).mean() > 0.9
        mean = ((first.astype(int) + second + 1) // 2).astype(np.uint16)
        field = motion.search(mean, [first, second], 2.0)
        assert np.array_equal(motion.compensate([first, second], field), mean)
        assert len(motion.encode(field, 2)) < 16

    def test_what_is_not_visible_costs_nothing(self) -> None:
        before = tiny.picture(128, 128).astype(np.uint16) * 257
        now = before.copy()
        now[64:, :] = np.random.default_rng(0).integers(0, 65_536, (64, 128, 3))
        assert motion.is_still(motion.search(now, [before], 1.0, (64, 128)))
        assert not motion.is_still(motion.search(now, [before], 1.0))

    @given(fields())
    @settings(max_examples=25, deadline=None)
    def test_streams_as_the_rules_say(self, field: motion.Field) -> None:
        shape = 8 * field.shape[0], 8 * field.shape[1]
        for references in (1, 2):
            if references == 1:
                field = field.copy()
                field[..., 1], field[..., 4:] = 1, 0
            stream = motion.encode(field, references)
            assert stream == slow_motion.encode(field, references)
            assert np.array_equal(motion.decode(stream, shape, references), field)
            assert np.array_equal(slow_motion.decode(stream, shape, references), field)

    @given(fields(), st.integers(0, 100))
    @settings(max_examples=15, deadline=None)
    def test_compensation_as_the_rules_say(self, field: motion.Field, seed: int) -> None:
        references = [noise(field, seed), noise(field, seed + 1)]
        expected = slow_motion.compensate(references, field)
        assert np.array_equal(motion.compensate(references, field), expected)

    def test_still(self) -> None:
        field = motion.still((128, 192))
        assert motion.is_still(field)
        reference = noise(field, 0)
        assert motion.compensate([reference], field) is reference
        field[8:, :8, 0] = 32
        assert motion.is_still(field)
        assert np.array_equal(slow_motion.compensate([reference], field), reference)
        assert len(motion.encode(np.tile(field, (8, 8, 1)), 1)) < 40

    def test_what_does_not_fit_is_refused(self) -> None:
        picture = np.zeros((64, 128, 3), np.uint16)
        field = motion.still((64, 128))
        field[..., 3] = 5

        def changed(at: tuple[int, int], which: int, value: int) -> motion.Field:
            other = field.copy()
            other[at[0], at[1], which] = value
            return other

        bad = [
            changed((0, 0), 0, 24),
            changed((0, 0), 0, 0),
            changed((3, 3), 0, 8),
            changed((3, 3), 2, 1),
            changed((0, 8), 1, 2),
            np.ascontiguousarray(field[:, :8]),
            np.ascontiguousarray(field[:7]),
            np.ascontiguousarray(field[..., :5]),
        ]
        for value, which in ((0, 1), (4, 1), (REACH + 1, 2), (-REACH - 1, 3), (1, 4)):
            other = field.copy()
            other[..., which] = value
            bad.append(other)
        for other in bad:
            with pytest.raises(ShapeError):
                motion.compensate([picture], other)
        with pytest.raises(ShapeError):
            motion.encode(bad[2], 1)
        with pytest.raises(ShapeError):
            motion.search(picture, [picture[:, :64].copy()], 1.0)
        with pytest.raises(ShapeError, match="64"):
            motion.search(picture[:, :96].copy(), [picture[:, :96].copy()], 1.0)
        with pytest.raises(ShapeError, match="references"):
            motion.search(picture, [], 1.0)
        with pytest.raises(ShapeError, match="visible"):
            motion.search(picture, [picture], 1.0, (65, 128))

    def test_damage(self) -> None:
        field = motion.still((64, 64))
        field[..., 2] = 9
        stream = motion.encode(field, 1)
        for damaged in (stream[:-2], stream + b"\0\0", b"", b"\0" * 5, b"\xff" * 41):
            with pytest.raises(CoderError, match="vectors"):
                motion.decode(damaged, (64, 64), 1)

    def test_a_vector_that_is_too_long(self) -> None:
        """An encoder that knows no limit."""
        field = motion.still((64, 64))
        field[..., 3] = -REACH - 1
        stream = slow_motion.encode(field, 1)
        for decode in (motion.decode, slow_motion.decode):
            with pytest.raises(CoderError):
                decode(stream, (64, 64), 1)


class TestFiles:
    @pytest.mark.parametrize(
        "about", [info(), info(1, 1), info(66, 130, chroma="4:4:4", bit_depth=10)], ids=lambda a: f"{a.width}"
    )
    def test_decoder_has_what_the_encoder_has(self, codec: VideoCodec, about: object) -> None:
        data, found = coded(codec, 6, about, structure=Structure(4, 0), quality=40)
        frames = decoded(codec, data)
        assert [f.key for f in frames] == [True, False, False, False, True, False]
        assert digest(frames) == digest(found)

    def test_quality(self, codec: VideoCodec) -> None:
        sizes = [len(coded(codec, 2, quality=q)[0]) for q in (0, 50, 100)]
        assert sizes == sorted(sizes)
        assert len(coded(codec, 2)[0]) == sizes[1]
        with pytest.raises(VideoError, match="0 and 100"):
            coded(codec, 1, quality=101)

    def test_the_same_in_every_way_of_computing(
        self, codec: VideoCodec, weights: Path, tmp_path: Path
    ) -> None:
        """Forty frames and one key frame, decoded by other processes: no pixel differs, and none needs PyTorch."""
        path = tmp_path / "clip.ltn"
        data, found = coded(codec, 40, structure=Structure(40), quality=60)
        assert sum(frame.bytes > 20 for frame in found) > 30
        path.write_bytes(data)
        for isa, threads in itertools.product(("portable", "avx2", ""), ("1", "2")):
            if isa == "avx2" and not _has_avx2():
                continue
            command = [sys.executable, "-c", _OTHER, str(weights), str(path), threads]
            environment = {**os.environ, "LATENS_ISA": isa}
            run = subprocess.run(command, capture_output=True, check=True, env=environment, text=True)
            assert run.stdout.split() == [digest(found), "False"]

    def test_what_does_not_pay_is_not_coded(self, codec: VideoCodec) -> None:
        """Changes from faint to strong: nothing is coded until the squared error it takes away is worth its bytes."""
        model, image, level = codec.model, codec.model.image, 40_000
        before = pictures(64, 128)
        other = pictures(64, 128, seed=1).astype(int)
        coded_at = []
        for share in (0.01, 0.05, 0.1, 0.2, 0.5, 1.0):
            now = np.rint(before + share * (other - before)).astype(np.uint16)
            found = model.encode(now, [before], level, 8)
            data = found.streams[0].data
            field = motion.search(now, [before], model._price(level))
            T, y = (model._latent(p, level) for p in (motion.compensate([before], field), now))
            z = model._z_of(y, T, level)
            symbols = model._quantise(y - T, model._indexes(z)).astype(float)
            steps = (y - T) / 256
            worth = 20 * ((steps**2).sum() - ((steps - symbols) ** 2).sum())
            if data:
                assert worth > 8 * len(data)
            else:
                assert worth <= 8 * (2 + image.hyper * z[0].size)
            coded_at.append(bool(data))
        assert coded_at == sorted(coded_at)
        assert not coded_at[0]
        assert coded_at[-1]

    def test_frames_as_the_rules_say(self, codec: VideoCodec) -> None:
        """Each frame after the first, from its symbols, with the steps of docs/pixels.md one by one."""
        data, _ = coded(codec, 6, info(130, 66), structure=Structure(6, 3), quality=70)
        model, image = codec.model, codec.model.image
        reader = ltn.VideoReader(io.BytesIO(data))
        frames = list(reader.frames())
        header = reader.header
        assert [f.number for f in frames] == [0, 4, 2, 1, 3, 5]
        assert [f.references for f in frames] == [(), (0,), (0, 4), (0, 2), (2, 4), (4,)]
        assert frames[0].quality > frames[1].quality > header.quality > frames[2].quality > frames[3].quality
        _, first = model.decode(frames[0], (), (128, 192), header)
        found = {0: first}
        for frame in frames[1:]:
            level = header.quality if frame.quality is None else frame.quality
            others = [found[number] for number in frame.references]
            field = motion.still((128, 192))
            if len(frame.streams) == 2:
                field = slow_motion.decode(frame.streams[1].data, (128, 192), len(others))
            moved = slow_motion.compensate(others, field)
            decoder = LaneDecoder(frame.streams[0].data, frame.streams[0].lanes)
            knot = image.knot(level)
            channels = np.arange(image.hyper, dtype=np.int16)[:, None, None]
            order = np.ascontiguousarray(np.broadcast_to(channels, (image.hyper, 2, 3)))
            z = decoder.decode(order, model.z_tables.tables(knot * image.hyper, (knot + 1) * image.hyper))
            indexes = model.networks["h_scale"].run(
                np.ascontiguousarray(z.clip(-Z_MAX, Z_MAX).transpose(1, 2, 0))
            )
            symbols = decoder.decode(indexes.astype(np.uint8), image.y_tables.tables(0, 64), header.skip)
            assert symbols.any()
            T = image.latent(image.networks["g_a"].run(moved, (), (16, 3)), level)
            y_hat = np.clip(T + 256 * symbols.astype(np.int32), -(2**20), 2**20)
            scale = [image.factors["out_scale"].at(level)]
            one, two = (
                image.networks["g_s"].run(image.entry(y, level), scale, (16, 3)).astype(int)
                for y in (y_hat, T)
            )
            found[frame.number] = (moved + one - two).clip(0, 65_535).astype(np.uint16)
        shown = decoded(codec, data)
        assert [f.number for f in shown] == list(range(6))
        for frame in shown:
            assert np.array_equal(frame.rgb, found[frame.number][:66, :130])

    @pytest.mark.parametrize("bframes", [0, 1, 3, 7])
    def test_all_structures(self, codec: VideoCodec, bframes: int) -> None:
        """Groups of all lengths, seeking, and files that are read while they are written."""
        for gop in (1, 2, 3, 5, 9, 30):
            data, found = coded(codec, 13, structure=Structure(gop, bframes), quality=50)
            shown = decoded(codec, data)
            assert [f.number for f in shown] == list(range(13))
            assert [f.key for f in shown] == [i % gop == 0 for i in range(13)]
            assert [f.frame.timestamp for f in shown] == [2 * i for i in range(13)]
            assert digest(shown) == digest(found)
        reader = ltn.VideoReader(io.BytesIO(coded(codec, 13, structure=Structure(5, bframes))[0]))
        reader.seek(14 / 50)
        assert [f.number for f in codec.decode(reader)] == list(range(5, 13))

    def test_what_stands_still_costs_nothing(self, codec: VideoCodec) -> None:
        """Pictures that are predicted as they are: neither vectors nor symbols, and no synthesis."""
        about, alike = info(128, 64, chroma="4:4:4", bit_depth=12), Structure(3, scene_cuts=False)
        (first,) = codec.encode(about, clip(about, 1), io.BytesIO(), structure=alike, quality=30)
        file = io.BytesIO()
        given = [replace(f, planes=first.frame.planes) if t else f for t, f in enumerate(clip(about, 3))]
        found = list(codec.encode(about, iter(given), file, structure=alike, quality=30))
        assert [frame.bytes for frame in found[1:]] == [0, 0]
        shown = decoded(codec, file.getvalue())
        assert digest(shown) == digest(found)
        assert all(np.array_equal(frame.rgb, shown[0].rgb) for frame in shown)

    def test_a_frozen_file(self) -> None:
        """What a released model wrote once is decoded to the same planes for ever (tests/vectors/make_video.py)."""
        folder = Path(__file__).parents[1] / "vectors" / "ltn"
        data = (folder / "video.ltn").read_bytes()
        frames = decoded(VideoCodec(ltn.VideoReader(io.BytesIO(data)).header.model), data)
        assert [
            [hashlib.sha256(p.tobytes()).hexdigest()[:16] for p in f.frame.planes] for f in frames
        ] == json.loads((folder / "video.json").read_text())

    def test_damage_is_concealed(self, codec: VideoCodec) -> None:
        data, _ = coded(codec, 6, structure=Structure(3, 0))
        frames = list(ltn.VideoReader(io.BytesIO(data)).frames())
        header = ltn.VideoReader(io.BytesIO(data)).header
        stream = frames[1].streams[0]
        for change, error in (
            ({"checksum": 1}, ChecksumError),
            ({"streams": (stream._replace(data=b"\0\0\0"),)}, CoderError),
        ):
            changed = self.rewritten(header, frames, change)
            with pytest.raises(error, match="frame 1"):
                decoded(codec, changed)
            assert [f.number for f in decoded(codec, changed, on_error="conceal")] == [0, 3, 4, 5]
        # Of B frames, only those that need it are lost.
        data, _ = coded(codec, 10, structure=Structure(9, 3))
        frames = list(ltn.VideoReader(io.BytesIO(data)).frames())
        assert [f.number for f in frames] == [0, 4, 2, 1, 3, 8, 6, 5, 7, 9]
        for lost, left in ((1, [0, 9]), (2, [0, 4, 5, 6, 7, 8, 9]), (3, [0, 2, 3, 4, 5, 6, 7, 8, 9])):
            streams = (frames[lost].streams[0]._replace(data=b"\0\0\0"),)
            changed = self.rewritten(header, frames, {"streams": streams}, lost)
            with pytest.raises(CoderError, match=f"frame {frames[lost].number}"):
                decoded(codec, changed)
            assert [f.number for f in decoded(codec, changed, on_error="conceal")] == left

    def rewritten(
        self, header: ltn.VideoHeader, frames: list[ltn.Frame], change: dict[str, object], which: int = 1
    ) -> bytes:
        file = io.BytesIO()
        writer = ltn.VideoWriter(file, header)
        for number, frame in enumerate(frames):
            writer.add(frame._replace(**change) if number == which else frame)
        writer.finish(1000)
        return file.getvalue()


def _has_avx2() -> bool:
    try:
        return " avx2 " in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


class TestWeights:
    def test_the_same_weights_make_the_same_file(self, weights: Path, tmp_path: Path) -> None:
        zoo.save(network(), tmp_path / "again.safetensors", "tiny-video")
        assert (tmp_path / "again.safetensors").read_bytes() == weights.read_bytes()
        assert load_video(weights).id == "tiny-video"

    def test_a_released_image_model_is_named(self) -> None:
        loaded = load_video()
        image = zoo.load("latens-psnr-1")
        assert loaded.image.entropy_id == image.entropy_id
        assert loaded.entropy_id != image.entropy_id

    def test_bad_files(self, weights: Path, tmp_path: Path) -> None:
        data = weights.read_bytes()
        for number, bad in enumerate(
            (
                data[: len(data) // 2],
                data.replace(b'"family":"video"', b'"family":"vidio"'),
                data.replace(b"network.h_a.0.bias", b"network.h_a.0.bios"),
                data.replace(b"z.sizes", b"z.sizzz"),
                data.replace(b'"image"', b'"imago"'),
                data.replace(b'"price"', b'"prize"'),
            )
        ):
            assert bad != data, number
            path = tmp_path / f"bad{number}.safetensors"
            path.write_bytes(bad)
            with pytest.raises(ModelError):
                load_video(path)
        with pytest.raises(ModelError, match="image"):
            load_video(card("latens-psnr-1").path)
        with pytest.raises(ModelError, match="range"):
            LatensVideoConfig(context_blocks=-1)


def test_training_pass() -> None:
    model = network().train()
    frames = torch.rand(2, 3, 3, 64, 64)
    out = model(frames, torch.tensor([0.2, 0.8]))
    assert [x.shape for x in out["x_hat"]] == [(2, 3, 64, 64)] * 2
    bits = sum(-torch.log2(p).sum() for found in out["likelihoods"] for p in found.values())
    error = sum((x - frames[:, t]).square().mean() for t, x in enumerate(out["x_hat"], 1))
    (bits + 1e4 * error).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    assert all(p.grad is None for p in model.image.parameters())
    assert not any("image" in name for name in model.state_dict())
