"""Colour and chroma transforms against frozen numbers and against the definition of BT.709."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from latens.errors import ShapeError
from latens.transforms import RGB2YCbCr, YCbCr2RGB, YUV420To444, YUV444To420
from latens.transforms.functional import rgb2ycbcr, ycbcr2rgb, yuv_420_to_444, yuv_444_to_420

X = (torch.arange(48, dtype=torch.float32).reshape(1, 3, 4, 4) * 7 % 48) / 47

# What CompressAI 1.2.8 makes of X.
# fmt: off
YCBCR = [
    0.2926298, 0.441566, 0.5905021, 0.6657022, 0.8146383, 0.2331574, 0.3820936, 0.3139064, 0.4628426, 0.6117787,
    0.6869788, 0.835915, 0.254434, 0.4033702, 0.335183, 0.4841191, 0.709216, 0.709216, 0.7092161, 0.1985777,
    0.1985777, 0.5922062, 0.5922062, 0.709216, 0.7092161, 0.7092161, 0.1985777, 0.1985777, 0.5922062, 0.5922062,
    0.709216, 0.7092161, 0.3141797, 0.3141797, 0.3141797, 0.3610023, 0.3610023, 0.824818, 0.824818, 0.3141797,
    0.3141797, 0.3141797, 0.3610023, 0.3610022, 0.824818, 0.824818, 0.3141797, 0.3141797,
]
RGB = [
    0.2848042, 0.6682851, 1.0517659, -0.1730596, 0.2104213, 0.5939021, 0.977383, 0.3395872, 0.7230681, 1.1065489,
    -0.1182766, 0.2652042, 0.6486852, 1.032166, 0.3943702, 0.7778511, -0.0547686, -0.0034524, 0.0478638, 0.5772642,
    0.6285805, 0.8712065, 0.9225227, -0.0474377, 0.0038784, 0.0551946, 0.5845951, 0.6359113, 0.8785374, 0.9298536,
    -0.0401068, 0.0112093, -0.2961064, 0.1291957, 0.5544978, 0.9798, 1.4051021, -0.0646766, 0.3606256, -0.235349,
    0.1899532, 0.6152552, 1.0405575, 1.4658597, -0.0039191, 0.421383, -0.1745915, 0.2507106,
]
U420 = [0.4574468, 0.5, 0.3723404, 0.6702128]
V420 = [0.5425532, 0.5851064, 0.712766, 0.5]
U444 = {
    "bilinear": [
        0.4574468, 0.4680851, 0.4893617, 0.5, 0.4361702, 0.4627659, 0.5159574, 0.5425532,
        0.393617, 0.4521276, 0.569149, 0.6276596, 0.3723404, 0.4468085, 0.5957447, 0.6702128,
    ],
    "bicubic": [
        0.4647749, 0.4699629, 0.4785078, 0.4836958, 0.4275759, 0.4609115, 0.5158172, 0.5491527,
        0.366307, 0.4460034, 0.5772679, 0.6569642, 0.329108, 0.436952, 0.6145774, 0.7224212,
    ],
    "nearest": [
        0.4574468, 0.4574468, 0.5, 0.5, 0.4574468, 0.4574468, 0.5, 0.5,
        0.3723404, 0.3723404, 0.6702128, 0.6702128, 0.3723404, 0.3723404, 0.6702128, 0.6702128,
    ],
}
# fmt: on


def close(tensor, numbers):
    return torch.allclose(tensor.flatten(), torch.tensor(numbers), rtol=0, atol=2e-6)


def test_frozen_numbers():
    assert close(rgb2ycbcr(X), YCBCR)
    assert close(ycbcr2rgb(X), RGB)
    y, u, v = yuv_444_to_420(X)
    assert torch.equal(y, X[:, :1])
    assert close(u, U420)
    assert close(v, V420)
    for mode, numbers in U444.items():
        assert close(yuv_420_to_444((y, u, v), mode)[:, 1], numbers)


def test_known_colours():
    colours = torch.tensor([[1.0, 1, 1], [0, 0, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    converted = rgb2ycbcr(colours.T.reshape(3, 1, 4)).reshape(3, 4).T.tolist()
    assert converted[0] == pytest.approx([1, 0.5, 0.5])
    assert converted[1] == pytest.approx([0, 0.5, 0.5])
    assert converted[2][0] == pytest.approx(0.2126)
    assert converted[2][2] == pytest.approx(1.0)
    assert converted[3][1] == pytest.approx(1.0)


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_there_and_back(values):
    rgb = torch.tensor(values, dtype=torch.float64).reshape(3, 1, 1)
    assert torch.allclose(ycbcr2rgb(rgb2ycbcr(rgb)), rgb, rtol=0, atol=1e-12)
    assert math.isclose(
        float(rgb2ycbcr(rgb)[0]), 0.2126 * values[0] + 0.7152 * values[1] + 0.0722 * values[2]
    )


def test_objects_do_what_the_functions_do():
    planes = YUV444To420()(X)
    assert torch.equal(RGB2YCbCr()(X), rgb2ycbcr(X))
    assert torch.equal(YCbCr2RGB()(X), ycbcr2rgb(X))
    assert torch.equal(planes[2], yuv_444_to_420(X)[2])
    assert torch.equal(YUV420To444("nearest")(planes), yuv_420_to_444(planes, "nearest"))
    assert [plane.shape for plane in YUV420To444(return_tuple=True)(planes)] == [(1, 1, 4, 4)] * 3
    shown = [repr(t) for t in (RGB2YCbCr(), YCbCr2RGB(), YUV444To420(), YUV420To444())]
    assert shown == ["RGB2YCbCr()", "YCbCr2RGB()", "YUV444To420()", "YUV420To444(return_tuple=False)"]


def test_planes_may_come_in_a_tuple():
    assert all(map(torch.equal, yuv_444_to_420(X.chunk(3, 1)), yuv_444_to_420(X)))


@pytest.mark.parametrize("function", [rgb2ycbcr, ycbcr2rgb])
@pytest.mark.parametrize(
    "image", [X.numpy(), X[0, 0], X[:, :2], X.int(), X[None]], ids=["array", "2d", "2channels", "int", "5d"]
)
def test_wrong_images(function, image):
    with pytest.raises(ShapeError, match="expected a floating-point tensor"):
        function(image)


def test_wrong_planes_and_modes():
    planes = yuv_444_to_420(X)
    for call, says in (
        (lambda: yuv_444_to_420(X, "max_pool"), "max_pool"),
        (lambda: yuv_420_to_444(planes, "cubic"), "cubic"),
        (lambda: yuv_420_to_444(planes[:2]), "three tensors"),
        (lambda: yuv_420_to_444((*planes[:2], 3)), "three tensors"),
        (lambda: yuv_420_to_444((X[:, :1, :2], *planes[1:])), r"Y is \(1, 1, 2, 4\)"),
    ):
        with pytest.raises(ShapeError, match=says):
            call()
