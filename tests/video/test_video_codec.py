"""Videos to ``.ltn`` and back: what one process writes another reads, damage, weights, colour."""

from __future__ import annotations

import gc
import io
import json
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clips import clip, info, network, save_weights

from latens import format as ltn
from latens.codec.structure import Structure
from latens.codec.video import CodedFrame, DecodedFrame, VideoCodec
from latens.convert.flow import ExactLatents, freeze_flow
from latens.errors import (
    ChecksumError,
    FormatError,
    LatensError,
    ModelError,
    TruncatedError,
    UnknownModelError,
    VersionError,
    VideoError,
    WrongWeightsError,
)
from latens.io import VideoFrame, VideoInfo
from latens.runtime.layers import reference_sums
from latens.runtime.planes import planes_from_rgb, rgb_from_planes
from latens.zoo.weights import load_video, save


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="module")
def codec(weights: Path) -> VideoCodec:
    return VideoCodec(weights)


def encode(
    codec: VideoCodec, about: VideoInfo, count: int, gop: int = 4, **options: Any
) -> tuple[bytes, list[CodedFrame]]:
    file = io.BytesIO()
    coded = list(codec.encode(about, clip(about, count, **options), file, structure=Structure(gop)))
    return file.getvalue(), coded


def decode(codec: VideoCodec, data: bytes, **options: Any) -> tuple[list[DecodedFrame], list[str]]:
    reader = ltn.VideoReader(io.BytesIO(data), on_error=options.get("on_error", "raise"))
    return list(codec.decode(reader, **options)), reader.problems


@pytest.fixture(scope="module")
def sample(codec: VideoCodec) -> tuple[bytes, list[CodedFrame]]:
    return encode(codec, info(), 10)


class TestRoundTrip:
    @pytest.mark.parametrize(
        "about",
        [
            info(),
            info(71, 39),
            info(1, 1),
            info(129, 40, chroma="4:2:2"),
            info(33, 17, chroma="4:4:4", colour=(1, 1, 1, 1)),
            info(72, 40, bit_depth=10, colour=(9, 16, 9, 0)),
        ],
        ids=lambda a: f"{a.width}x{a.height}-{a.chroma}-{a.bit_depth}",
    )
    def test_decoder_has_what_the_encoder_has(self, codec: VideoCodec, about: VideoInfo) -> None:
        data, coded = encode(codec, about, 6, irregular=True)
        decoded, problems = decode(codec, data)
        assert problems == []
        times = [frame.timestamp for frame in clip(about, 6, irregular=True)]
        assert [d.frame.timestamp for d in decoded] == times
        assert [d.key for d in decoded] == [True, False, False, False, True, False]
        for a, b in zip(coded, decoded, strict=True):
            assert a.number == b.number
            for x, y, size in zip(a.frame.planes, b.frame.planes, about.plane_sizes, strict=True):
                assert x.shape == size
                assert np.array_equal(x, y)
        header = ltn.VideoReader(io.BytesIO(data)).header
        assert (header.chroma, header.bit_depth, tuple(header.colour)) == (
            about.chroma,
            about.bit_depth,
            about.colour,
        )

    def test_one_frame(self, codec: VideoCodec) -> None:
        data, _ = encode(codec, info(), 1)
        assert len(decode(codec, data)[0]) == 1

    def test_no_frame(self, codec: VideoCodec) -> None:
        with pytest.raises(VideoError, match="no frame"):
            encode(codec, info(), 0)

    def test_frames_that_do_not_fit(self, codec: VideoCodec) -> None:
        with pytest.raises(VideoError, match="expected"):
            list(codec.encode(info(), clip(info(80, 40), 2), io.BytesIO()))
        with pytest.raises(VideoError, match="gop"):
            list(codec.encode(info(), clip(info(), 2), io.BytesIO(), structure=Structure(0)))

    def test_no_drift(self, codec: VideoCodec) -> None:
        data, coded = encode(codec, info(16, 16), 80, gop=80)
        decoded, _ = decode(codec, data)
        assert all(
            np.array_equal(x, y)
            for a, b in zip(coded, decoded, strict=True)
            for x, y in zip(a.frame.planes, b.frame.planes, strict=True)
        )

    def test_references_lie_on_the_grid(self, codec: VideoCodec, sample: tuple[bytes, Any]) -> None:
        for frame in decode(codec, sample[0])[0]:
            assert not (frame.rgb % 257).any()
            assert frame.rgb8().shape == (40, 72, 3)

    def test_seek(self, codec: VideoCodec, sample: tuple[bytes, list[CodedFrame]]) -> None:
        reader = ltn.VideoReader(io.BytesIO(sample[0]))
        reader.seek(9 * 2 / 50)
        decoded = list(codec.decode(reader))
        assert [d.number for d in decoded] == [8, 9]
        assert np.array_equal(decoded[1].frame.planes[0], sample[1][9].frame.planes[0])

    def test_each_frame_can_be_read_at_once(self, codec: VideoCodec) -> None:
        file = io.BytesIO()
        for coded in codec.encode(info(), clip(info(), 3), file, structure=Structure(2)):
            reader = ltn.VideoReader(io.BytesIO(file.getvalue()), on_error="conceal")
            found = list(codec.decode(reader, on_error="conceal"))
            assert len(found) == coded.number + 1
            assert np.array_equal(found[-1].frame.planes[1], coded.frame.planes[1])


_OTHER = """
import io, sys, json, hashlib, torch
from latens import format as ltn
from latens.codec.video import VideoCodec
torch.set_num_threads(int(sys.argv[3])); torch.backends.mkldnn.enabled = sys.argv[4] == "1"
codec = VideoCodec(sys.argv[1])
found = []
original = codec.model.entropy.parts
for name, part in original.items():
    def spy(*a, _decode=part.decode, **k):
        decoded = _decode(*a, **k)
        data = decoded.z.tobytes() + decoded.y.tobytes() + decoded.latent.tobytes()
        found.append(hashlib.sha256(data).hexdigest())
        return decoded
    part.decode = spy
frames = list(codec.decode(ltn.VideoReader(open(sys.argv[2], "rb"))))
print(json.dumps([found, [int(f.frame.planes[0].astype(int).sum()) for f in frames]]))
"""


def test_other_configurations_decode_the_same_symbols(
    weights: Path, sample: tuple[bytes, list[CodedFrame]], tmp_path: Path
) -> None:
    path = tmp_path / "clip.ltn"
    path.write_bytes(sample[0])
    results = []
    for threads, mkldnn in (("1", "1"), ("3", "0")):
        command = [sys.executable, "-c", _OTHER, str(weights), str(path), threads, mkldnn]
        results.append(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))
    assert results[0][0] == results[1][0]
    assert len(results[0][0]) == 3 + 2 * 7
    sums = np.array([r[1] for r in results])
    assert np.abs(sums[0] - sums[1]).max() <= 72 * 40


class TestDamage:
    def test_cut(self, codec: VideoCodec, sample: tuple[bytes, list[CodedFrame]]) -> None:
        data = sample[0]
        for size in range(60, len(data), len(data) // 12):
            with pytest.raises(TruncatedError):
                decode(codec, data[:size])
            reader = ltn.VideoReader(io.BytesIO(data[:size]), on_error="conceal")
            whole = sum(1 for _ in reader.frames())
            if whole:
                found, problems = decode(codec, data[:size], on_error="conceal")
                assert len(found) == whole
                assert problems
            else:
                with pytest.raises(FormatError, match="nothing"):
                    decode(codec, data[:size], on_error="conceal")

    def test_a_damaged_frame_costs_those_up_to_the_next_key_frame(
        self, codec: VideoCodec, sample: tuple[bytes, list[CodedFrame]]
    ) -> None:
        data, coded = sample
        reader = ltn.VideoReader(io.BytesIO(data))
        ends = [reader.position, *(reader.position for _ in reader.frames())]
        for lost in range(10):
            damaged = bytearray(data)
            damaged[(ends[lost] + ends[lost + 1]) // 2] ^= 0x10
            with pytest.raises(ChecksumError):
                decode(codec, bytes(damaged))
            found, problems = decode(codec, bytes(damaged), on_error="conceal")
            until = min(10, (lost // 4 + 1) * 4)
            assert [f.number for f in found] == [i for i in range(10) if not lost <= i < until]
            assert len(problems) >= until - lost
            for frame in found:
                assert np.array_equal(frame.frame.planes[0], coded[frame.number].frame.planes[0])

    def test_symbols_that_do_not_fit_their_checksum(
        self, codec: VideoCodec, sample: tuple[bytes, list[CodedFrame]]
    ) -> None:
        frames = list(ltn.VideoReader(io.BytesIO(sample[0])).frames())
        header = ltn.VideoReader(io.BytesIO(sample[0])).header
        for change, error in (
            ({"checksum": 1}, ChecksumError),
            ({"streams": frames[1].streams[:1]}, FormatError),
            ({"streams": (ltn.Stream(1, b""), frames[1].streams[1])}, LatensError),
        ):
            file = io.BytesIO()
            writer = ltn.VideoWriter(file, header)
            for number, frame in enumerate(frames):
                writer.add(frame._replace(**change) if number == 1 else frame)  # type: ignore[arg-type]
            writer.finish(1000)
            with pytest.raises(error, match="frame 1"):
                decode(codec, file.getvalue())
            found, problems = decode(codec, file.getvalue(), on_error="conceal")
            assert [f.number for f in found] == [0, *range(4, 10)]
            assert problems


class TestWeights:
    def test_other_weights(self, sample: tuple[bytes, Any], weights: Path, tmp_path: Path) -> None:
        model = network()
        with torch.no_grad():
            model.img_decoder[6].bias.add_(0.01)
        save(model, tmp_path / "pixels.safetensors", "tiny-video")
        with pytest.raises(WrongWeightsError, match="other-weights"):
            decode(VideoCodec(tmp_path / "pixels.safetensors"), sample[0])
        assert (
            len(decode(VideoCodec(tmp_path / "pixels.safetensors"), sample[0], other_weights=True)[0]) == 10
        )
        with torch.no_grad():
            model.res_hyperprior.hyper_decoder_scale.deconv2.weight[0, 0, 0, 0] += 0.5
        save(model, tmp_path / "symbols.safetensors", "tiny-video")
        with pytest.raises(WrongWeightsError, match="entropy model"):
            decode(VideoCodec(tmp_path / "symbols.safetensors"), sample[0], other_weights=True)

    def test_the_same_weights_make_the_same_file(self, weights: Path, tmp_path: Path) -> None:
        assert save_weights(tmp_path / "again.safetensors").read_bytes() == weights.read_bytes()
        loaded = load_video(weights)
        assert loaded.network.flow_unit == "pixels"
        assert loaded.id == "tiny-video"

    def test_checkpoints(self, tmp_path: Path, weights: Path) -> None:
        model = network()
        torch.save({"state_dict": dict(model.state_dict())}, tmp_path / "Some Run.pth.tar")
        loaded = load_video(tmp_path / "Some Run.pth.tar")
        assert loaded.id == "some-run"
        assert loaded.network.flow_unit == "corrected"
        assert loaded.entropy.entropy_id == load_video(weights).entropy.entropy_id
        assert load_video(tmp_path / "Some Run.pth.tar", flow_unit="relative").network.flow_unit == "relative"

    def test_a_checkpoint_without_tables(self, tmp_path: Path) -> None:
        state = {
            k: v[:0] if k.endswith(("_offset", "_quantized_cdf", "_cdf_length")) else v
            for k, v in network().state_dict().items()
        }
        torch.save(state, tmp_path / "raw.pth")
        with pytest.raises(ModelError, match="freeze"):
            load_video(tmp_path / "raw.pth")

    def test_files_that_are_none(self, tmp_path: Path, weights: Path) -> None:
        with pytest.raises(UnknownModelError, match="cannot be read"):
            load_video(tmp_path / "missing.safetensors")
        data = weights.read_bytes()
        for number, bad in enumerate(
            (
                b"",
                data[: len(data) // 2],
                data.replace(b"scale-space-flow", b"scale-space-flaw"),
                data.replace(b'\\"num_levels\\": 5', b'\\"num_levels\\": 9'),
                data.replace(b"entropy.img.medians", b"entropy.img.mediums"),
                data.replace(b"network.img_encoder.0.bias", b"network.img_encoder.0.bios"),
            )
        ):
            path = tmp_path / f"bad{number}.safetensors"
            path.write_bytes(bad)
            with pytest.raises(ModelError):
                load_video(path)

    def test_integer_networks_follow_the_float_ones(self) -> None:
        model = network()
        latents = freeze_flow(model)
        for name, part in latents.parts.items():
            prior = getattr(model, f"{name}_hyperprior")
            medians = prior.entropy_bottleneck._get_medians().detach().view(1, 4, 1, 1)
            symbols = part.quantise_z((torch.round(4 * torch.randn(1, 4, 3, 5)) + medians).numpy(), 0)
            with torch.no_grad():
                z_hat = torch.from_numpy(symbols).float()[None] + medians
                scales, means = prior.hyper_decoder_scale(z_hat), prior.hyper_decoder_mean(z_hat)
                expected = prior.gaussian_conditional.build_indexes(scales)[0].numpy()
            _, _, decoded = part.encode(symbols, part.quantiser(means.numpy(), 0, 0), 0, 0)
            assert (decoded.indexes != expected).mean() < 0.01
            assert np.abs(decoded.indexes.astype(int) - expected).max() <= 1
            torch.testing.assert_close(torch.from_numpy(decoded.latent), means, rtol=0, atol=0.51)
            # In plain integers, one layer after the other.
            values = symbols.astype(np.int64) * 256 + part.medians[:, None, None]
            sums = reference_sums(part.hyper[0].layers, values)
            thresholds = part.levels[0].thresholds[0].values
            assert np.array_equal(np.searchsorted(thresholds, sums), decoded.indexes)

    def test_tensors_of_hostile_files(self) -> None:
        tensors = freeze_flow(network()).tensors()
        assert ExactLatents.from_tensors(tensors).entropy_id == freeze_flow(network()).entropy_id
        with pytest.raises(ModelError, match="no part"):
            ExactLatents.from_tensors({**tensors, "sound.medians": tensors["img.medians"]})
        with pytest.raises(ModelError):
            ExactLatents.from_tensors({k: v for k, v in tensors.items() if not k.startswith("res.")})


class TestColour:
    @pytest.mark.parametrize("colour", [(1, 1, 1, 0), (6, 6, 6, 0), (9, 16, 9, 1), (1, 13, 0, 1)])
    @pytest.mark.parametrize("depth", [8, 10, 12])
    def test_there_and_back(self, colour: tuple[int, ...], depth: int) -> None:
        random = np.random.default_rng(1)
        given = random.integers(0, 65_536, (9, 7, 3), dtype=np.uint16)
        planes = planes_from_rgb(given, "4:4:4", depth, colour)
        rgb = rgb_from_planes(planes, "4:4:4", depth, colour)
        # Where rounding leaves what RGB can hold, a step may be lost.
        inside = ((given > 3000) & (given < 62_000)).all(2)
        assert inside.sum() > 30
        for a, b in zip(planes, planes_from_rgb(rgb, "4:4:4", depth, colour), strict=True):
            assert a.dtype == (np.uint8 if depth == 8 else np.uint16)
            assert np.array_equal(a[inside], b[inside])

    @pytest.mark.parametrize(
        ("matrix", "red", "blue"), [(1, 0.2126, 0.0722), (6, 0.299, 0.114), (9, 0.2627, 0.0593)]
    )
    @pytest.mark.parametrize(
        ("chroma", "down", "across"), [("4:2:0", 2, 2), ("4:2:2", 1, 2), ("4:4:4", 1, 1)]
    )
    def test_by_the_formulas_in_floats(
        self, matrix: int, red: float, blue: float, chroma: str, down: int, across: int
    ) -> None:
        """Both directions, at an odd size, against the matrices as the standard has them and PyTorch's resampling."""
        random = np.random.default_rng(2)
        height, width = 7, 9
        small = -(-height // down), -(-width // across)
        y = random.integers(90, 150, (height, width)).astype(np.uint8)
        u, v = (random.integers(118, 139, small).astype(np.uint8) for _ in range(2))
        both = torch.from_numpy((np.stack([u, v])[None] - 128.0) / 224)
        both = torch.nn.functional.interpolate(
            both, scale_factor=(float(down), float(across)), mode="bilinear"
        )
        pb, pr = both[0, :, :height, :width].numpy()
        luma = (y - 16.0) / 219
        r, b = luma + 2 * (1 - red) * pr, luma + 2 * (1 - blue) * pb
        g = (luma - red * r - blue * b) / (1 - red - blue)
        expected = 65_535 * np.stack([r, g, b], 2)
        found = rgb_from_planes((y, u, v), chroma, 8, (1, 1, matrix, 0))
        assert np.abs(found - expected).max() <= 0.75
        r, g, b = found.transpose(2, 0, 1) / 65_535
        luma = red * r + (1 - red - blue) * g + blue * b
        chromas = np.stack([(b - luma) / (2 * (1 - blue)), (r - luma) / (2 * (1 - red))])
        padded = np.pad(chromas, ((0, 0), (0, height % down), (0, width % across)), mode="edge")
        halved = padded.reshape(2, small[0], down, small[1], across).mean((2, 4)) * 224 + 128
        planes = planes_from_rgb(found, chroma, 8, (1, 1, matrix, 0))
        for a, b in zip(planes, (luma * 219 + 16, *halved), strict=True):
            assert np.abs(a - b).max() <= 0.51

    def test_known_colours(self) -> None:
        # Rec. ITU-R BT.709: bars of 75 % yellow and of white, limited range.
        for (y, u, v), expected in (((168, 44, 136), (0.75, 0.75, 0.0)), ((235, 128, 128), (1.0, 1.0, 1.0))):
            planes = [np.full((1, 1), value, np.uint8) for value in (y, u, v)]
            rgb = rgb_from_planes(planes, "4:4:4", 8, (1, 1, 1, 0)).ravel() / 65_535
            assert np.abs(rgb - expected).max() < 0.005

    def test_grey_has_no_chroma(self) -> None:
        grey = np.repeat(np.arange(0, 65_536, 13, dtype=np.uint16)[None, :, None], 3, 2)
        for matrix in (1, 4, 5, 6, 7, 9):
            for depth in (8, 10, 12):
                _, u, v = planes_from_rgb(grey, "4:2:0", depth, (1, 1, matrix, 0))
                assert (u == 128 << depth - 8).all()
                assert (v == 128 << depth - 8).all()

    def test_flat_chroma_survives(self) -> None:
        planes = (
            np.full((5, 7), 90, np.uint8),
            np.full((3, 4), 100, np.uint8),
            np.full((3, 4), 150, np.uint8),
        )
        again = planes_from_rgb(rgb_from_planes(planes, "4:2:0", 8, (6, 6, 6, 0)), "4:2:0", 8, (6, 6, 6, 0))
        for a, b in zip(planes, again, strict=True):
            assert np.array_equal(a, b)

    def test_unknown_matrix(self) -> None:
        with pytest.raises(VersionError, match="matrix"):
            rgb_from_planes([np.zeros((1, 1), np.uint8)] * 3, "4:4:4", 8, (1, 1, 8, 0))


def test_frames_are_not_held(codec: VideoCodec) -> None:
    about = info(16, 16)
    given: list[weakref.ref[VideoFrame]] = []
    coded: list[weakref.ref[CodedFrame]] = []
    tensors = []

    def watched() -> Iterator[VideoFrame]:
        for frame in clip(about, 24):
            given.append(weakref.ref(frame))
            yield frame

    file = io.BytesIO()
    for found in codec.encode(about, watched(), file, structure=Structure(6)):
        coded.append(weakref.ref(found))
        if found.number % 6 == 5:
            gc.collect()
            tensors.append(sum(type(o) is torch.Tensor for o in gc.get_objects()))
            assert sum(ref() is not None for ref in given) <= 2
            assert sum(ref() is not None for ref in coded) <= 2
    assert tensors[1:] == tensors[:-1]
