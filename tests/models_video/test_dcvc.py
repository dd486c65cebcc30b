"""DCVC-RT against the same written plainly: names, numbers, coding."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from masked_frames import Inter, Intra
from torch import Tensor

from latens.errors import CoderError, LatensError, LimitError, ModelError, ShapeError
from latens.models.video import DCVCRT, DCVCRTIntra
from latens.models.video.dcvc import Reference

SIZES = {"intra": (8, 4, 12), "inter": (8, 4, 6, 10)}


def enliven(model: Any) -> Any:
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
        model.get_parameter("enc.enc_2.6.weight" if hasattr(model, "enc") else "encoder.down.weight").mul_(20)
    return model.double().eval()


@pytest.fixture(scope="module")
def intra() -> tuple[DCVCRTIntra, Intra]:
    theirs = enliven(Intra(*SIZES["intra"]))
    ours = DCVCRTIntra(*SIZES["intra"]).double().eval()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


@pytest.fixture(scope="module")
def inter() -> tuple[DCVCRT, Inter]:
    theirs = enliven(Inter(*SIZES["inter"]))
    ours = DCVCRT(*SIZES["inter"]).double().eval()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def picture(height: int = 80, width: int = 48, seed: int = 0) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bits(likelihoods: Tensor) -> Tensor:
    return -likelihoods.log2().sum()


close = {"rtol": 1e-9, "atol": 1e-9}


@torch.no_grad()
def test_pictures_are_what_they_are_written_plainly(intra: tuple[DCVCRTIntra, Intra]) -> None:
    ours, theirs = intra
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in theirs.state_dict().items()
    }
    for qp in (0, 63):
        x_hat, bits_y, bits_z = theirs(picture(), qp)
        out = ours(picture(), qp)
        assert float(bits_y) > 500
        torch.testing.assert_close(out["x_hat"], x_hat, **close)
        torch.testing.assert_close(bits(out["likelihoods"]["y"]), bits_y, **close)
        torch.testing.assert_close(bits(out["likelihoods"]["z"]), bits_z, **close)
        code = ours.compress(picture(), qp)
        size = 8 * sum(len(s[0]) for s in code["strings"])
        assert size < 1.1 * float(bits_y + bits_z) + 200
        decoded = ours.decompress(code["strings"], code["shape"], qp)["x_hat"]
        torch.testing.assert_close(decoded, x_hat.clamp(0, 1), **close)


@torch.no_grad()
def test_frames_are_what_they_are_written_plainly(inter: tuple[DCVCRT, Inter]) -> None:
    ours, theirs = inter
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in theirs.state_dict().items()
    }
    at_encoder = at_decoder = Reference(frame=picture(seed=5))
    feature = None
    for number, qp in enumerate((71, 3, 40)):
        x = picture(seed=number)
        x_hat, feature, bits_y, bits_z = theirs(x, qp, picture(seed=5), feature)
        out = ours(x, qp, at_encoder)
        torch.testing.assert_close(out["x_hat"], x_hat, **close)
        torch.testing.assert_close(out["reference"].feature, feature, **close)
        torch.testing.assert_close(bits(out["likelihoods"]["y"]), bits_y, **close)
        torch.testing.assert_close(bits(out["likelihoods"]["z"]), bits_z, **close)
        code = ours.compress(x, qp, at_encoder)
        decoded = ours.decompress(code["strings"], code["shape"], qp, at_decoder)
        torch.testing.assert_close(decoded["x_hat"], x_hat, **close)
        at_encoder, at_decoder = code["reference"], decoded["reference"]
        assert torch.equal(at_encoder.feature, at_decoder.feature)


def test_both_learn_in_a_step(intra: tuple[DCVCRTIntra, Intra], inter: tuple[DCVCRT, Inter]) -> None:
    for model, arguments in ((intra[0], ()), (inter[0], (Reference(frame=picture(seed=2)),))):
        twin = deepcopy(model).train()
        out = twin(picture(), 10, *arguments)
        rate = sum(bits(p) for p in out["likelihoods"].values())
        (rate + (out["x_hat"] - picture()).square().sum()).backward()
        idle = {k for k, p in twin.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
        # There is a frame, so features of one are not asked for.
        assert {k.split(".")[0] for k in idle} <= {"feature_adaptor_p"}


def test_sizes_are_found_in_weights_and_others_are_named(intra: Any, inter: Any) -> None:
    for model, kind, other in ((intra[0], DCVCRTIntra, DCVCRT), (inter[0], DCVCRT, DCVCRTIntra)):
        state = model.state_dict()
        again = kind.from_state_dict({f"module.{k}": v for k, v in state.items()})
        assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in state.items()}
        with pytest.raises(ModelError, match=f"do not belong to {other.__name__}"):
            other.from_state_dict(state)
        with pytest.raises(ModelError, match=r"y_spatial_prior"):
            kind.from_state_dict({k: v for k, v in state.items() if not k.startswith("y_spatial_prior")})
        with pytest.raises(ModelError, match="surplus"):
            kind.from_state_dict({**state, "surplus": torch.zeros(1)})
    with pytest.raises(ModelError, match="multiple of 4"):
        DCVCRTIntra(6)
    with pytest.raises(ModelError, match="multiple of 2"):
        DCVCRT(5)


def test_what_is_refused(intra: Any, inter: Any) -> None:
    ours, frames = intra[0], inter[0]
    for qp in (-1, 64, "a"):
        with pytest.raises(ModelError, match="qp must be"):
            ours.compress(picture(), qp)
    with pytest.raises(ShapeError, match="multiples of 16"):
        ours.compress(picture(40, 48), 0)
    with pytest.raises(ShapeError, match="expected pictures"):
        ours(picture()[0], 0)
    with pytest.raises(ModelError, match="needs a reference"):
        frames.compress(picture(), 0, Reference())
    with pytest.raises(ShapeError, match="reference is of a picture of 16x16"):
        frames.compress(picture(), 0, Reference(frame=picture(16, 16)))
    code = ours.compress(picture(), 0)
    (y,), (z,) = code["strings"]
    with pytest.raises(LatensError):
        ours.decompress([[y[:-4]], [z]], code["shape"], 0)
    with pytest.raises(CoderError):
        ours.decompress([[y + b"\0\0\0\0"], [z]], code["shape"], 0)
    with pytest.raises(LimitError):
        ours.decompress([[b"\0" * 8], [b"\0" * 8]], (2**16, 2**16), 0)
    with pytest.raises(ShapeError):
        ours.decompress([[y]], code["shape"], 0)
    with pytest.raises(CoderError, match="NaN"):
        ours.compress(picture() * torch.nan, 0)
    code = frames.compress(picture(), 0, Reference(frame=picture()))
    with pytest.raises(ShapeError, match="another size"):
        frames.decompress(code["strings"], code["shape"], 0, Reference(frame=picture(16, 16)))
