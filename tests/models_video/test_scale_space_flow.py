"""Scale-space flow: what the reference computes (frozen vectors), the unit of the flow, and what goes wrong."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from scipy import ndimage
from torch import Tensor
from video_recipe import M, N, clip, exercise_video, fill_video

import latens.models
from latens import zoo
from latens.errors import CoderError, ModelError, ShapeError
from latens.models.video import ScaleSpaceFlow
from latens.zoo.complexity import count

VECTOR = Path(__file__).parents[1] / "vectors" / "models" / "ScaleSpaceFlow.safetensors"


@pytest.fixture
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def make(**options: Any) -> ScaleSpaceFlow:
    torch.manual_seed(0)
    model = ScaleSpaceFlow(N=N, M=M, **{"flow_unit": "relative", **options})
    fill_video(model)
    model.eval().update()
    return model


def load() -> tuple[dict[str, Tensor], dict[str, Any]]:
    with safe_open(VECTOR, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, json.loads(file.metadata()["facts"])  # noqa: SIM118


@pytest.mark.usefixtures("float64")
def test_float64_equals_reference() -> None:
    expected, expected_facts = load()
    tensors, facts = exercise_video(make())
    assert facts == expected_facts
    assert tensors.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(
            tensors[key], value, rtol=1e-9, atol=1e-9, msg=lambda m, k=key: f"{k}: {m}"
        )


def test_float32_is_close_to_reference() -> None:
    expected, _ = load()
    model = make()
    with torch.no_grad():
        frames = model([frame.float() for frame in clip()])["x_hat"]
    # Of the later frames, a latent that rounds to the other side changes pixels.
    torch.testing.assert_close(frames[0][..., ::9, ::9].double(), expected["x_hat/0"], rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("float64")
def test_reference_strings_decode() -> None:
    expected, facts = load()
    model = make()
    nested: list[Any] = []
    for frame in facts["strings"]:
        parts = [[bytes.fromhex(s)] for s in frame]
        nested.append(parts if len(parts) == 2 else {"motion": parts[:2], "residual": parts[2:]})
    _, shapes = model.compress(clip())
    for t, frame in enumerate(model.decompress(nested, shapes)):
        torch.testing.assert_close(frame[..., ::9, ::9], expected[f"decoded/{t}"], rtol=1e-9, atol=1e-9)


def test_state_of_the_full_size() -> None:
    with torch.device("meta"):
        model = ScaleSpaceFlow()
    _, facts = load()
    assert model.state_dict().keys() == facts["state"].keys()
    assert model.motion_encoder[0].weight.shape == (128, 6, 5, 5)
    assert model.res_decoder[0].weight.shape == (384, 128, 5, 5)
    assert model.img_hyperprior.entropy_bottleneck.quantiles.shape == (192, 1, 3)


class TestFlow:
    @pytest.mark.parametrize(
        ("unit", "per_pixel"),
        [("pixels", (1, 1)), ("relative", (2 / 96, 2 / 64)), ("corrected", (1 / 128, 1 / 128))],
    )
    def test_unit(self, unit: str, per_pixel: tuple[float, float]) -> None:
        model = make(flow_unit=unit)
        picture = clip(1, 64, 96)[0]
        flow = torch.zeros(1, 2, 64, 96)
        flow[:, 0], flow[:, 1] = 3 * per_pixel[0], -5 * per_pixel[1]
        volume = picture[:, :, None].expand(-1, -1, 3, -1, -1)
        warped = model.warp_volume(volume, flow, torch.zeros(1, 1, 64, 96))
        # What is found 3 to the right and 5 above.
        torch.testing.assert_close(warped[..., 5:, :-3], picture[..., :-5, 3:], rtol=0, atol=1e-4)

    def test_corrected_equals_relative_on_crops(self) -> None:
        volume = make().gaussian_volume(clip(1, 256, 256)[0], 1.5, 5)
        field = torch.randn(1, 3, 256, 256) * 0.1
        results = [
            make(flow_unit=u).warp_volume(volume, field[:, :2], field[:, 2:])
            for u in ("relative", "corrected")
        ]
        torch.testing.assert_close(*results)

    def test_new_models_count_in_pixels(self) -> None:
        assert ScaleSpaceFlow(N=N, M=M).flow_unit == "pixels"

    def test_foreign_weights_are_relative(self) -> None:
        plain = dict(make().state_dict())
        model = ScaleSpaceFlow(N=N, M=M)
        model.load_state_dict(plain)
        assert model.flow_unit == "relative"
        assert (
            ScaleSpaceFlow.from_state_dict({f"module.{k}": v for k, v in plain.items()}).flow_unit
            == "relative"
        )
        wrapper = torch.nn.ModuleDict({"net": ScaleSpaceFlow(N=N, M=M)})
        wrapper.load_state_dict({f"net.{k}": v for k, v in plain.items()})
        assert wrapper["net"].flow_unit == "relative"

    def test_own_weights_stay_in_pixels(self) -> None:
        model = make(flow_unit="pixels")
        file = io.BytesIO()
        torch.save(model.state_dict(), file)
        file.seek(0)
        state = torch.load(file, weights_only=True)
        assert ScaleSpaceFlow.from_state_dict(state).flow_unit == "pixels"
        parallel = torch.nn.DataParallel(model).state_dict()
        assert ScaleSpaceFlow.from_state_dict(parallel).flow_unit == "pixels"

    def test_what_was_asked_for_stays(self) -> None:
        model = ScaleSpaceFlow(N=N, M=M, flow_unit="corrected")
        model.load_state_dict(dict(make().state_dict()))
        assert model.flow_unit == "corrected"
        model.flow_unit = "pixels"
        model.load_state_dict(dict(make().state_dict()))
        assert model.flow_unit == "pixels"

    def test_unknown_unit(self) -> None:
        with pytest.raises(ModelError, match="flow_unit"):
            ScaleSpaceFlow(N=N, M=M, flow_unit="miles")


class TestVolume:
    def test_levels_against_scipy(self) -> None:
        x = clip(1, 64, 96)[0].double()
        volume = ScaleSpaceFlow.gaussian_volume(x, 1.5, 3).numpy()
        blurred = ndimage.gaussian_filter(x[0, 1].numpy(), 1.5, radius=5, mode="nearest")
        np.testing.assert_allclose(volume[0, 1, 1], blurred, atol=1e-9)
        assert np.array_equal(volume[0, :, 0], x[0].numpy())
        halved = blurred.reshape(32, 2, 48, 2).mean((1, 3))
        smaller = ndimage.gaussian_filter(halved, 1.5, radius=5, mode="nearest")
        inner = ndimage.zoom(smaller, 2, order=1, mode="grid-constant", grid_mode=True)[4:-4, 4:-4]
        np.testing.assert_allclose(volume[0, 1, 2][4:-4, 4:-4], inner, atol=1e-9)

    def test_against_trilinear_sampling(self) -> None:
        torch.manual_seed(3)
        volume = torch.randn(2, 3, 6, 24, 40, dtype=torch.float64)
        flow, scale = torch.randn(2, 2, 24, 40).double() * 9, torch.randn(2, 1, 24, 40).double()
        warped = make(flow_unit="pixels").warp_volume(volume, flow, scale)
        for b, c, i, j in ((0, 0, 0, 0), (1, 2, 23, 39), (0, 1, 12, 7), (1, 0, 5, 30)):
            level = (scale[b, 0, i, j].item() + 1) * 3 - 0.5
            place = np.array([[level], [i + flow[b, 1, i, j]], [j + flow[b, 0, i, j]]])
            expected = ndimage.map_coordinates(volume[b, c].numpy(), place, order=1, mode="nearest")
            assert warped[b, c, i, j].item() == pytest.approx(expected[0], abs=1e-9)

    def test_sizes_that_do_not_fit(self) -> None:
        with pytest.raises(ShapeError, match="multiples of 16"):
            ScaleSpaceFlow.gaussian_volume(torch.zeros(1, 3, 40, 64), 1.5, 5)
        model, volume = make(), torch.zeros(1, 3, 6, 16, 16)
        with pytest.raises(ShapeError, match="expected a flow"):
            model.warp_volume(volume, torch.zeros(1, 2, 8, 8), torch.zeros(1, 1, 8, 8))
        with pytest.raises(ShapeError, match="expected a volume"):
            model.warp_volume(volume[0], torch.zeros(1, 2, 16, 16), torch.zeros(1, 1, 16, 16))
        with pytest.raises(ModelError, match="padding_mode"):
            model.warp_volume(volume, torch.zeros(1, 2, 16, 16), torch.zeros(1, 1, 16, 16), "wrap")
        with pytest.raises(ShapeError, match="expected motion"):
            model.forward_prediction(torch.zeros(1, 3, 16, 16), torch.zeros(1, 2, 16, 16))


class TestCoding:
    def test_decoder_follows_the_encoder(self) -> None:
        model = make()
        frames = clip(4)
        x_ref, code = model.encode_keyframe(frames[0])
        y_ref = model.decode_keyframe(code["strings"], code["shape"])
        for frame in frames[1:]:
            x_ref, code = model.encode_inter(frame, x_ref)
            y_ref = model.decode_inter(y_ref, code["strings"], code["shape"])
        assert torch.equal(x_ref, y_ref)

    def test_one_frame(self) -> None:
        model = make()
        strings, shapes = model.compress(clip(1))
        assert [x.shape for x in model.decompress(strings, shapes)] == [(1, 3, 128, 256)]

    def test_batches(self) -> None:
        model = make()
        frames = [torch.cat((x, x.flip(3))) for x in clip(2)]
        decoded = model.decompress(*model.compress(frames))
        alone = model.decompress(*model.compress(clip(2)))
        torch.testing.assert_close(decoded[1][:1], alone[1], rtol=1e-4, atol=1e-4)

    def test_bad_frames(self) -> None:
        model = make()
        frames = clip(2)
        for call in (model, model.compress):
            for bad in (
                frames[0],
                [],
                [frames[0], frames[1][..., :128]],
                [frames[0][:, :2]],
                [frames[0][..., :200]],
            ):
                with pytest.raises(ShapeError):
                    call(bad)
        with pytest.raises(CoderError):
            model.compress([frames[0], frames[1] * float("nan")])

    def test_bad_strings(self) -> None:
        model = make()
        strings, shapes = model.compress(clip(2))
        with pytest.raises(ShapeError, match="each frame"):
            model.decompress(strings, shapes[:1])
        with pytest.raises(ShapeError, match="'motion' and 'residual'"):
            model.decompress(strings, [shapes[0], shapes[0]])
        with pytest.raises(ShapeError, match="do not fit"):
            model.decode_inter(torch.zeros(1, 3, 128, 128), strings[1], shapes[1])
        strings[1]["residual"][0][0] = strings[1]["residual"][0][0][:-4]
        with pytest.raises(CoderError):
            model.decompress(strings, shapes)


def test_in_the_zoo() -> None:
    assert latens.models.ScaleSpaceFlow is ScaleSpaceFlow
    with torch.device("meta"):
        model = zoo.models["ssf2020"](quality=9, metric="ms-ssim")
    assert isinstance(model, ScaleSpaceFlow)
    cost = count(model)
    assert cost.parameters == sum(p.numel() for p in model.parameters())
    assert cost.encoding > cost.decoding > 50_000
