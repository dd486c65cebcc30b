from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from latens.errors import ModelError
from latens.layers import (
    AttentionBlock,
    CheckerboardMaskedConv2d,
    Gain,
    Interleave,
    Lambda,
    MaskedConv2d,
    NamedLayer,
    QReLU,
    Reshape,
    ResidualBlock,
    ResidualBlockUpsample,
    ResidualBlockWithStride,
    SpectralConv2d,
    SpectralConvTranspose2d,
    Transpose,
    residual,
    sequential_channel_ramp,
    subpel_conv3x3,
)
from latens.models.sensetime import ResidualBottleneckBlock


def seen(layer: nn.Conv2d, size: int = 7) -> torch.Tensor:
    """Which input positions change the centre of the output."""
    x = torch.randn(1, layer.in_channels, size, size, requires_grad=True)
    layer(x)[0, :, size // 2, size // 2].sum().backward()
    assert x.grad is not None
    middle = slice(size // 2 - 2, size // 2 + 3)
    return (x.grad[0].abs().sum(0) > 0)[middle, middle].int()


def test_raster_mask() -> None:
    expected = torch.tensor([[1] * 5, [1] * 5, [1, 1, 0, 0, 0], [0] * 5, [0] * 5])
    assert torch.equal(seen(MaskedConv2d(2, 3, 5, padding=2)), expected)
    expected[2, 2] = 1
    assert torch.equal(seen(MaskedConv2d(2, 3, 5, padding=2, mask_type="B")), expected)


def test_checkerboard_mask() -> None:
    expected = torch.tensor([[(i + j) % 2 for j in range(5)] for i in range(5)])
    assert torch.equal(seen(CheckerboardMaskedConv2d(2, 3, 5, padding=2)), expected)
    expected[2, 2] = 1
    assert torch.equal(seen(CheckerboardMaskedConv2d(2, 3, 5, padding=2, mask_type="B")), expected)


def test_any_mask() -> None:
    mask = torch.eye(5)
    assert torch.equal(seen(MaskedConv2d(2, 3, 5, padding=2, mask=mask)), mask.int())


def test_mask_leaves_the_gradient_alone() -> None:
    layer = MaskedConv2d(2, 3, 5, padding=2)
    plain = nn.Conv2d(2, 3, 5, padding=2)
    x = torch.randn(1, 2, 6, 6)
    weight = layer.weight.detach().clone()
    layer(x).sum().backward()
    plain(x).sum().backward()
    assert layer.weight.grad is not None
    assert plain.weight.grad is not None
    torch.testing.assert_close(layer.weight.grad, plain.weight.grad)
    assert torch.equal(layer.weight, weight)


@pytest.mark.parametrize("kind", [MaskedConv2d, CheckerboardMaskedConv2d])
def test_unknown_mask(kind: type[MaskedConv2d]) -> None:
    with pytest.raises(ModelError, match='"A" or "B"'):
        kind(1, 1, 3, mask_type="C")


@pytest.mark.parametrize(
    ("block", "factor"),
    [
        (ResidualBlock(3, 4), 1),
        (ResidualBlock(4, 4), 1),
        (ResidualBlockWithStride(3, 4, stride=2), 1 / 2),
        (ResidualBlockWithStride(4, 4, stride=1), 1),
        (ResidualBlockUpsample(3, 4, 2), 2),
        (subpel_conv3x3(3, 4, 3), 3),
        (AttentionBlock(4), 1),
    ],
)
def test_sizes(block: nn.Module, factor: float) -> None:
    channels = next(block.parameters()).shape[1]
    out = block(torch.randn(2, channels, 8, 6))
    assert out.shape == (2, 4, 8 * factor, 6 * factor)


def test_shortcuts() -> None:
    x = torch.randn(1, 4, 5, 5)
    for block in (ResidualBlock(4, 4), AttentionBlock(4), ResidualBlockWithStride(4, 4, stride=1)):
        for value in block.parameters():
            if value.dim() == 4 or value.shape == (4,):
                nn.init.zeros_(value)
        # All that is left of the attention's branches are the ReLUs behind their shortcuts.
        expected = x + F.relu(x) / 2 if isinstance(block, AttentionBlock) else x
        torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("strip", [2**10, 2**12, 2**24])
@pytest.mark.parametrize("height", [1, 2, 3, 17, 36])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_bottlenecks_in_strips(
    strip: int, height: int, layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(residual, "_STRIP_BYTES", strip)
    torch.manual_seed(0)
    blocks = (ResidualBottleneckBlock(8, 8, inplace=True), ResidualBottleneckBlock(8, 8), AttentionBlock(8))
    for block in blocks:
        x = torch.randn(2, 8, height, 9, dtype=torch.float64).contiguous(memory_format=layout)
        expected = block.double()(x).detach()
        before = x.clone()
        with torch.no_grad():
            found = block(x)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
        assert torch.equal(x, found if getattr(block, "inplace", False) else before)


def test_small_modules() -> None:
    x = torch.arange(8.0).view(1, 8, 1, 1)
    assert Interleave(2)(x).flatten().tolist() == [0, 4, 1, 5, 2, 6, 3, 7]
    assert Reshape((2, 4))(x).shape == (1, 2, 4)
    assert Transpose(1, 3)(x).shape == (1, 1, 1, 8)
    assert NamedLayer("here")(x) is x
    assert Lambda(lambda v: v + 1)(x).sum() == x.sum() + 8
    gain = Gain((8, 1, 1), factor=3.0)
    assert torch.equal(gain(x), 3 * x)
    assert "here" in repr(NamedLayer("here"))


@pytest.mark.parametrize(
    ("interp", "min_ch", "expected"),
    [
        ("linear", 0, [3, 27, 51, 75, 100]),
        ("log", 0, [3, 7, 17, 41, 100]),
        ("log", 20, [3, 20, 20, 41, 100]),
    ],
)
def test_channel_ramp(interp: str, min_ch: int, expected: list[int]) -> None:
    layers = sequential_channel_ramp(
        3,
        100,
        min_ch=min_ch,
        num_layers=4,
        interp=interp,
        make_layer=nn.Conv2d,
        make_act=nn.ReLU,
        kernel_size=1,
    )
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    assert [convolutions[0].in_channels, *(layer.out_channels for layer in convolutions)] == expected
    assert isinstance(layers[-1], nn.Conv2d)
    with pytest.raises(ModelError, match="interp"):
        sequential_channel_ramp(1, 2, interp="cubic", make_layer=nn.Conv2d, make_act=nn.ReLU)


@pytest.mark.parametrize("size", [3, 4, 5])
def test_spectral_weights_are_those_of_a_convolution(size: int) -> None:
    for spectral, plain in (
        (SpectralConv2d, nn.Conv2d(2, 3, size)),
        (SpectralConvTranspose2d, nn.ConvTranspose2d(2, 3, size)),
    ):
        layer = spectral(2, 3, size)
        assert set(layer.state_dict()) == {"bias", "weight_transformed"}
        with torch.no_grad():
            layer.weight_transformed.copy_(torch.fft.rfft2(plain.weight, norm="ortho"))
            layer.bias.copy_(plain.bias)
        x = torch.randn(1, 2, 6, 6)
        torch.testing.assert_close(layer(x), plain(x))
        layer(x).sum().backward()
        assert layer.weight_transformed.grad is not None


def test_qrelu() -> None:
    x = torch.tensor([-3.0, 0.0, 100.0, 255.0, 300.0], requires_grad=True)
    out = QReLU.apply(x, 8, 4)
    assert out.tolist() == [0, 0, 100, 255, 255]
    out.sum().backward()
    fade = torch.exp(-((0.9943258522851727 * (2 * x.detach() / 255 - 1).abs()) ** 4))
    assert x.grad is not None
    torch.testing.assert_close(x.grad, torch.tensor([fade[0].item(), 1, 1, 1, fade[4].item()]))
    assert torch.equal(F.relu(out), out)
