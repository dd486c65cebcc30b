"""What a decoded picture differs by from its original: small functions to train with, and mixtures of them.

Each takes ``x_hat`` and ``x``, ``(B, 3, H, W)`` in 0..1, and gives ``(B,)``: 0 for equal pictures, and a gradient
everywhere. They have units of their own; a :class:`Mixture` brings them to that of squared error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from latens.errors import ModelError, ShapeError
from latens.metrics import ms_ssim
from latens.metrics import perceptual as reference

__all__ = [
    "DISTORTIONS", "EYE", "Mixture", "chroma_error", "squared_error", "ssimulacra2_distance",
    "structural_dissimilarity",
]  # fmt: skip


def squared_error(x_hat: Tensor, x: Tensor) -> Tensor:
    """Mean squared error of values of 0 to 255."""
    return (x_hat - x).square().flatten(1).mean(1) * 255.0**2


def chroma_error(x_hat: Tensor, x: Tensor) -> Tensor:
    """Mean squared error of the two colour differences (BT.601 Cb and Cr, full range) of values of 0 to 255."""
    colour = x.new_tensor([[-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    return (colour @ (x_hat - x).flatten(2)).square().mean((1, 2)) * 255.0**2


def structural_dissimilarity(x_hat: Tensor, x: Tensor) -> Tensor:
    """One minus MS-SSIM. Sides of more than 160 pixels."""
    return 1.0 - ms_ssim(x_hat.contiguous(), x.contiguous())


# ---- SSIMULACRA2


@cache
def _band(size: int, mirrored: bool) -> Tensor:
    """Blurring along a side of a picture as a matrix: five times as fast as convolutions of one channel."""
    places = torch.arange(size)
    band = torch.zeros(size, size)
    for offset in range(-reference.RADIUS, reference.RADIUS + 1):
        found = places + offset
        inside = torch.where(found < 0, -found - 1, torch.where(found >= size, 2 * size - 1 - found, found))
        counts = 1.0 if mirrored else ((found >= 0) & (found < size)).float()
        weight = torch.exp(torch.tensor(-(offset**2) / (2 * reference.SIGMA**2)))
        band.index_put_((inside, places), weight * counts, accumulate=True)
    window = torch.exp(
        -(torch.arange(-reference.RADIUS, reference.RADIUS + 1) ** 2) / (2 * reference.SIGMA**2)
    )
    return band / window.sum()


def _blur(x: Tensor) -> Tensor:
    down, across = _band(x.shape[2], True).to(x), _band(x.shape[3], False).to(x)
    return down.T @ (x @ across)


def _linear(x: Tensor) -> Tensor:
    x = x.clamp(0.0, 1.0)
    curved = torch.exp(2.4 * torch.log((x.clamp_min(0.04045) + 0.055) / 1.055))
    return torch.where(x <= 0.04045, x / 12.92, curved)


def _xyb(x: Tensor) -> Tensor:
    mixed = (x.new_tensor(reference.ABSORBANCE) @ x.flatten(2)).view_as(x) + reference.BIAS
    mixed = torch.exp(torch.log(mixed.clamp_min(1e-6)) / 3.0) - reference.BIAS ** (1.0 / 3.0)
    luma = 0.5 * (mixed[:, 0] + mixed[:, 1])
    return torch.stack([7.0 * (mixed[:, 0] - mixed[:, 1]) + 0.42, luma + 0.01, mixed[:, 2] - luma + 0.55], 1)


def _means(map_: Tensor) -> Tensor:
    """Mean and fourth-power mean of maps ``(B, 3, H, W)``: ``(B, 3, 2)``; the root of nothing would have no slope."""
    return torch.stack([map_.mean((2, 3)), (map_.pow(4).mean((2, 3)) + 1e-20) ** 0.25], 2)


def ssimulacra2_distance(x_hat: Tensor, x: Tensor) -> Tensor:
    """100 less the SSIMULACRA2 score (:func:`latens.metrics.ssimulacra2`), in float32.

    Raises:
        ShapeError: a side of less than 256 pixels, which has not all of the scales.
    """
    if min(x.shape[2:]) < 8 * 2 ** (reference.SCALES - 1):
        raise ShapeError(f"ssimulacra2: trains on crops of 256 pixels or more, got {x.shape[3]}x{x.shape[2]}")
    a, b = _linear(x.float()), _linear(x_hat.float())
    parts = []
    for scale in range(reference.SCALES):
        if scale:
            a, b = (F.avg_pool2d(p, 2, ceil_mode=True, count_include_pad=False) for p in (a, b))
        p, q = _xyb(a), _xyb(b)
        error = p - q
        maps = torch.cat([p, error, p * p + q * q, error * error], 1)
        mean_p, mean_error, squares, square_error = torch.split(_blur(maps), 3, 1)
        mean_q = mean_p - mean_error
        # One less structural similarity, of terms that are small for pictures that are nearly the same: as it is
        # usually written, float32 would leave nothing but rounding errors of it.
        squared = mean_error**2
        variance = squares - mean_p * mean_p - mean_q * mean_q + reference.C2
        lost = (squared + (1.0 - squared) * (square_error - squared) / variance).clamp_min(0.0)
        edges = (1.0 + (q - mean_q).abs()) / (1.0 + (p - mean_p).abs()) - 1.0
        found = (lost, edges.clamp_min(0.0), (-edges).clamp_min(0.0))
        parts.append(torch.stack([_means(one) for one in found], 3))
    weights = x.new_tensor(reference.WEIGHTS.transpose(1, 0, 2, 3))
    total = (torch.stack(parts, 1) * weights).flatten(1).sum(1) * 0.9562382616834844
    total = 2.326765642916932 * total - 0.020884521182843837 * total**2 + 6.248496625763138e-05 * total**3
    return 10.0 * total.clamp_min(1e-3) ** 0.6276336467831387


# ---- mixtures


def _of_squared_error(lmbda: Tensor) -> Tensor:
    return torch.ones_like(lmbda)


def _of_structure(lmbda: Tensor) -> Tensor:
    # The field's pairs of lambda for models of one size, for squared error and for MS-SSIM (0.0018 and 2.4 up to 0.18
    # and 220), keep this ratio within a tenth.
    return torch.full_like(lmbda, 1280.0)


def _of_ssimulacra2(lmbda: Tensor) -> Tensor:
    # What a point of the score is worth along the curve of a model trained for squared error: the slopes of both over
    # rate, at the lambda where they were measured.
    return 2.7 * (lmbda / 0.00036) ** -0.226


Distortion = Callable[[Tensor, Tensor], Tensor]
Worth = Callable[[Tensor], Tensor]

DISTORTIONS: dict[str, tuple[Distortion, Worth]] = {
    "mse": (squared_error, _of_squared_error),
    "chroma": (chroma_error, _of_squared_error),
    "ms-ssim": (structural_dissimilarity, _of_structure),
    "ssimulacra2": (ssimulacra2_distance, _of_ssimulacra2),
}
"""By name: a distortion, and what a unit of it is worth in squared error at a lambda."""

EYE: dict[str, float] = {"mse": 0.25, "chroma": 0.25, "ssimulacra2": 0.65, "ms-ssim": 0.4}
"""What the default model is trained for. Squared error and structure keep from gaming the score, colour error from pale
colours."""


class Mixture:
    """A weighted sum of distortions, in the unit of squared error.

    It takes the place of the squared error in ``rate + lambda * distortion``, lambda being that of squared error.

    Args:
        weights: by name of :data:`DISTORTIONS`; at least one above 0.

    Raises:
        ModelError: an unknown name, or weights that are no weights.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        unknown = [name for name in weights if name not in DISTORTIONS]
        if unknown:
            raise ModelError(f"distortion {unknown[0]!r}: expected some of {', '.join(DISTORTIONS)}")
        self.weights = {name: float(weight) for name, weight in weights.items() if weight}
        if not self.weights or not all(0 < weight < 1e6 for weight in self.weights.values()):
            raise ModelError(f"weights of distortions: expected one or more, at least 0, got {dict(weights)}")

    def __call__(self, x_hat: Tensor, x: Tensor, lmbda: Tensor) -> Tensor:
        """The distortion of each picture, ``(B,)``.

        Args:
            x_hat: ``(B, 3, H, W)``, around 0..1.
            x: the originals.
            lmbda: ``(B,)``, weight of the squared error of values of 0 to 255 against bits per pixel.
        """
        parts = []
        for name, weight in self.weights.items():
            distortion, worth = DISTORTIONS[name]
            parts.append(weight * worth(lmbda) * distortion(x_hat, x))
        return torch.stack(parts).sum(0)
