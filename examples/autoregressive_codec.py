"""A latent codec written by hand: every row of the latent is predicted from the row above it.

A latent codec has three methods. ``forward`` says how likely a latent is, for training; ``compress`` and
``decompress`` go through it in the same order. That order is written once, in ``traverse``, so that the two directions
cannot differ. Try it:

python examples/autoregressive_codec.py examples/blossom.png --steps 200
"""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from latens.ans import BufferedRansEncoder, RansDecoder
from latens.entropy_models import GaussianConditional
from latens.latent_codecs import LatentCodec
from latens.layers import ResidualBlock, subpel_conv3x3
from latens.losses import RateDistortionLoss
from latens.models import SimpleVAECompressionModel
from latens.models.base import get_scale_table
from latens.ops import quantize_ste


class RowCodec(LatentCodec):
    """Means and scales of a row come from the decoded row above; the first row is predicted from zeros."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gaussian = GaussianConditional(get_scale_table())
        self.predict = nn.Sequential(
            nn.Conv2d(channels, 2 * channels, (1, 5), padding=(0, 2)),
            nn.LeakyReLU(),
            nn.Conv2d(2 * channels, 2 * channels, 1),
        )

    def parameters_of(self, above: Tensor) -> tuple[Tensor, Tensor]:
        scales, means = self.predict(above).chunk(2, dim=1)
        return scales.abs() + 0.1, means

    def forward(self, y: Tensor) -> dict[str, Any]:
        # All rows at once: while training, what is above is known (as if decoded, but not rounded around the mean).
        above = torch.cat((torch.zeros_like(y[:, :, :1]), quantize_ste(y)[:, :, :-1]), dim=2)
        scales, means = self.parameters_of(above)
        _, likelihoods = self.gaussian(y, scales, means)
        return {"likelihoods": {"y": likelihoods}, "y_hat": quantize_ste(y - means) + means}

    def traverse(self, shape: tuple[int, ...], code: Callable[[int, Tensor, Tensor], Tensor]) -> Tensor:
        """``code(row, indexes, means)`` encodes or decodes one row and returns its symbols."""
        y_hat = torch.zeros((1, *shape))
        for row in range(shape[1]):
            above = y_hat[:, :, row - 1 : row] if row else torch.zeros_like(y_hat[:, :, :1])
            # The encoder has to see exactly what the decoder will: decoded rows, and tensors of one layout.
            scales, means = self.parameters_of(above.contiguous().round())
            symbols = code(row, self.gaussian.build_indexes(scales), means)
            y_hat[:, :, row : row + 1] = symbols + means
        return y_hat

    def tables(self) -> tuple[Any, Any, Any]:
        if self.gaussian.quantized_cdf.numel() == 0:
            self.gaussian.update()
        found = (self.gaussian.quantized_cdf, self.gaussian.cdf_length, self.gaussian.offset)
        cdfs, lengths, offsets = (table.numpy() for table in found)
        return cdfs, lengths.reshape(-1), offsets.reshape(-1)

    def compress(self, y: Tensor) -> dict[str, Any]:
        encoder = BufferedRansEncoder()

        def encode(row: int, indexes: Tensor, means: Tensor) -> Tensor:
            symbols = torch.round(y[:, :, row : row + 1] - means)
            encoder.encode_with_indexes(
                symbols.int().flatten().numpy(), indexes.flatten().numpy(), *self.tables()
            )
            return symbols

        y_hat = self.traverse(tuple(y.shape[1:]), encode)
        return {"strings": [[encoder.flush()]], "shape": tuple(y.shape[1:]), "y_hat": y_hat}

    def decompress(self, strings: Any, shape: tuple[int, ...], **_: Any) -> dict[str, Any]:
        decoder = RansDecoder()
        decoder.set_stream(strings[0][0])

        def decode(row: int, indexes: Tensor, means: Tensor) -> Tensor:
            symbols = decoder.decode_stream(indexes.flatten().numpy(), *self.tables())
            return torch.tensor(symbols, dtype=torch.float32).reshape(indexes.shape)

        return {"y_hat": self.traverse(shape, decode)}


class RowModel(SimpleVAECompressionModel):
    """Any transforms around it make an image codec."""

    def __init__(self, N: int = 32, M: int = 48) -> None:
        super().__init__()
        steps = [nn.Sequential(nn.Conv2d(i, N, 5, 2, 2), ResidualBlock(N, N)) for i in (3, N, N)]
        self.g_a = nn.Sequential(*steps, nn.Conv2d(N, M, 5, 2, 2))
        steps = [nn.Sequential(ResidualBlock(N, N), subpel_conv3x3(N, o, 2)) for o in (N, N, 3)]
        self.g_s = nn.Sequential(subpel_conv3x3(M, N, 2), *steps)
        self.latent_codec = RowCodec(M)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image")
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    pixels = np.array(Image.open(options.image).convert("RGB"))
    x = (torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255)[:, :, : len(pixels) // 16 * 16]
    x = x[:, :, :, : x.shape[3] // 16 * 16]

    torch.manual_seed(0)
    model, criterion = RowModel(), RateDistortionLoss(0.02)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for step in range(options.steps):
        y, left = (int(torch.randint(max(size - 127, 1), ())) for size in x.shape[2:])
        crop = x[:, :, y : y + 128, left : left + 128]
        loss = criterion(model(crop), crop)
        optimizer.zero_grad()
        loss["loss"].backward()
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step}: loss {loss['loss']:.3f}")

    model.eval()
    coded = model.compress(x)
    decoded = model.latent_codec.decompress(coded["strings"], coded["shape"])
    assert torch.equal(decoded["y_hat"], coded["y_hat"])  # both directions, one traversal
    size = len(coded["strings"][0][0])
    with torch.no_grad():
        theory = sum(-torch.log2(p).sum().item() for p in model(x)["likelihoods"].values()) / 8
    print(f"{size} bytes; by the model's probabilities {theory:.0f}; decoded without loss")


if __name__ == "__main__":
    main()
