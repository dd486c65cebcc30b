from __future__ import annotations

import gc

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from latens._native import Winograd
from latens.errors import ShapeError
from latens.ops import fast_convolutions
from latens.ops.fast_convolutions import FastConvolutions

LAYERS = {
    "3x3": lambda: nn.Conv2d(40, 48, 3, padding=1),
    "3x3 of stride 2": lambda: nn.Conv2d(3, 40, 3, stride=2, padding=1),
    "halving": lambda: nn.Conv2d(40, 48, 5, stride=2, padding=2),
    "halving without bias": lambda: nn.Conv2d(40, 48, 5, stride=2, padding=2, bias=False),
    "5x5 of stride 2": lambda: nn.Conv2d(3, 40, 5, stride=2, padding=2),
    "1x1": lambda: nn.Conv2d(3, 40, 1, bias=False),
    "1x1 of stride 2": lambda: nn.Conv2d(3, 40, 1, stride=2),
    "groups": lambda: nn.Conv2d(40, 40, 3, padding=1, groups=40),
    "dilated": lambda: nn.Conv2d(40, 40, 3, padding=2, dilation=2),
    "padded by name": lambda: nn.Conv2d(3, 40, 3, padding="same"),
    "doubling": lambda: nn.ConvTranspose2d(40, 48, 5, stride=2, padding=2, output_padding=1),
    "doubling without bias": lambda: nn.ConvTranspose2d(40, 48, 5, 2, 2, 1, bias=False),
    "to pixels": lambda: nn.ConvTranspose2d(40, 3, 5, stride=2, padding=2, output_padding=1),
    "another transposed": lambda: nn.ConvTranspose2d(3, 40, 3, stride=2, padding=1, output_padding=1),
}


def run(layer: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad(), FastConvolutions():
        out: Tensor = layer(x.contiguous(memory_format=torch.channels_last))
    return out


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("size", [(1, 36, 40), (2, 38, 43)])
@pytest.mark.parametrize("small", [False, True])
def test_every_way_is_the_same_convolution(
    name: str, size: tuple[int, int, int], small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if small:
        monkeypatch.setattr(fast_convolutions, "_LARGE_BYTES", 2**14)
        monkeypatch.setattr(fast_convolutions, "_STRIP_BYTES", 2**14)
    torch.manual_seed(0)
    layer = LAYERS[name]()
    x = torch.randn(size[0], layer.in_channels, *size[1:])
    with torch.no_grad():
        expected = layer.double()(x.double())
    found = run(layer.float(), x)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)


def test_changed_weights_are_noticed() -> None:
    layer, x = LAYERS["3x3"](), torch.randn(1, 40, 36, 40)
    before = run(layer, x)
    layer.weight.data.mul_(2)  # leaves no trace in the version of the weight
    layer.bias.data.mul_(2)
    torch.testing.assert_close(run(layer, x), 2 * before)


def test_nothing_is_kept_of_weights_that_are_gone() -> None:
    gc.collect()
    before = len(fast_convolutions._known)
    layer = LAYERS["doubling"]()
    run(layer, torch.randn(1, 40, 36, 40))
    assert len(fast_convolutions._known) == before + 1
    del layer
    gc.collect()
    assert len(fast_convolutions._known) == before


@pytest.mark.parametrize("name", ["3x3", "doubling", "halving", "5x5 of stride 2"])
def test_bfloat16(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = LAYERS[name](), torch.randn(1, LAYERS[name]().in_channels, 36, 40)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        expected = layer(x)
        monkeypatch.setattr(fast_convolutions, "_LARGE_BYTES", 2**14)
        monkeypatch.setattr(fast_convolutions, "_STRIP_BYTES", 2**14)
        found = run(layer, x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_outputs_in_huge_pages(dtype: torch.dtype) -> None:
    large = fast_convolutions._empty(1, 1024, 1024, 24, dtype)
    assert large.shape == (1, 24, 1024, 1024)
    assert large.dtype == dtype
    assert large.is_contiguous(memory_format=torch.channels_last)
    large[0, :, 3, 4] = 1.5
    assert large[0, :, 3, 4].sum() == 36


def test_memory_of_large_outputs_is_used_again_once_nobody_has_it() -> None:
    first = fast_convolutions._empty(1, 1024, 1024, 9, torch.float32)
    place = first.data_ptr()
    view = first[0, 3].numpy()
    del first
    view[:] = 7
    other = fast_convolutions._empty(1, 1024, 1024, 9, torch.float32)
    other.zero_()
    assert other.data_ptr() != place
    assert (view == 7).all()
    del view
    again = fast_convolutions._empty(1, 1024, 1024, 18, torch.bfloat16)
    assert again.data_ptr() == place
    assert sum(array.nbytes for array in fast_convolutions._kept.arrays) <= fast_convolutions._KEPT_BYTES
    del again, other
    large = fast_convolutions._empty(1, 2048, 2048, 9, torch.float32)
    assert large.shape == (1, 9, 2048, 2048)
    assert not fast_convolutions._kept.arrays


def test_memory_is_not_tied_up_by_much_smaller_outputs() -> None:
    large = fast_convolutions._empty(1, 1024, 1024, 9, torch.float32)
    place = large.data_ptr()
    del large
    much_smaller = fast_convolutions._empty(1, 1024, 1024, 2, torch.float32)
    smaller = fast_convolutions._empty(1, 1024, 1024, 7, torch.float32)
    assert smaller.data_ptr() == place
    assert not place <= much_smaller.data_ptr() < place + 9 * 2**22
    tiny = fast_convolutions._empty(1, 8, 8, 9, torch.float32)
    assert all(tiny.data_ptr() != array.ctypes.data for array in fast_convolutions._kept.arrays)


def native(outputs: int = 48, weight: tuple[int, ...] = (1, 2, 36, 4, 40, 32)) -> Winograd:
    return Winograd(np.zeros(weight, np.float32), np.zeros((weight[0], 36, weight[3]), np.uint8), outputs)


@pytest.mark.parametrize(
    ("outputs", "weight"),
    [(48, (2, 2, 36, 4, 40, 32)), (48, (1, 2, 36, 3, 40, 32)), (65, (1, 2, 36, 4, 40, 32)),
     (48, (1, 2, 35, 4, 40, 32)), (48, (1, 2, 36, 4, 40, 16))],
)  # fmt: skip
def test_weights_that_do_not_fit_are_refused(outputs: int, weight: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError):
        native(outputs, weight)


@pytest.mark.parametrize(
    "change",
    [{"inputs": (1, 8, 9, 41)}, {"bias": (47,)}, {"out": (1, 4, 4, 48)}, {"out": (2, 4, 5, 48)},
     {"out": (1, 4, 5, 47)}, {"out": (4, 5, 48)}, {"scratch": (100,)}],
)  # fmt: skip
def test_memory_that_does_not_fit_is_refused(change: dict[str, tuple[int, ...]]) -> None:
    layer = native()
    shapes = {"inputs": (1, 8, 9, 40), "bias": (48,), "out": (1, 4, 5, 48), "scratch": (layer.scratch(),)}
    arrays = {name: np.ones(shape, np.float32) for name, shape in (shapes | change).items()}
    with pytest.raises(ShapeError):
        layer.run(**arrays)
    fitting = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    layer.run(**fitting)
    assert (fitting["out"] == 1).all()  # the bias alone
