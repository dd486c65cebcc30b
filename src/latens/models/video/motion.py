"""Block motion: one vector for each 16x16 block, in half pixels, found by search and applied to a picture.

Vectors are integers that a file carries, so both sides move the same pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["BLOCK", "REACH", "compensate", "search"]

BLOCK = 16
REACH = 64
"""The largest component of a vector, in half pixels."""

_COARSE = 4
_STEPS = REACH // 2 // _COARSE - 1  # leaves room for the refinement
_REFINE = 3
_MARGIN = REACH // 2 + 4
# Half positions between pixels, as in H.264 (ITU-T Rec. H.264, 8.4.2.2.1).
_TAPS = (1 / 32, -5 / 32, 20 / 32, 20 / 32, -5 / 32, 1 / 32)


def _between(x: Tensor, axis: int) -> Tensor:
    """Values half a pixel further along an axis; the last five have no meaning and are left out."""
    size = x.shape[axis] - len(_TAPS) + 1
    total = x.narrow(axis, 0, size) * _TAPS[0]
    for i, tap in enumerate(_TAPS[1:], 1):
        total = total.add_(x.narrow(axis, i, size), alpha=tap)
    return total


def _phases(reference: Tensor) -> Tensor:
    """The picture at whole and half positions: ``(B, 4, C, H + 2m, W + 2m)``, vertical half first, with a border."""
    height, width = reference.shape[2:]
    border = _MARGIN + 3
    padded = F.pad(reference, (border, border, border, border), mode="replicate")
    rows, columns = height + 2 * _MARGIN, width + 2 * _MARGIN
    across, down = _between(padded, 3), _between(padded, 2)
    both = _between(across, 2)
    parts = (
        padded[:, :, 3 : 3 + rows, 3 : 3 + columns],
        across[:, :, 3 : 3 + rows, 1 : 1 + columns],
        down[:, :, 1 : 1 + rows, 3 : 3 + columns],
        both[:, :, 1 : 1 + rows, 1 : 1 + columns],
    )
    return torch.stack(parts, dim=1)


def _gather(phases: Tensor, vectors: Tensor) -> Tensor:
    """Each block from where its vector points to: ``(B, C, H, W)``."""
    b, _, c, rows, columns = phases.shape
    height, width = rows - 2 * _MARGIN, columns - 2 * _MARGIN
    v = vectors.long()
    phase = (v[:, 0] & 1) * 2 + (v[:, 1] & 1)
    start = phase * (c * rows * columns) + (v[:, 0] >> 1) * columns + (v[:, 1] >> 1)
    start = start.repeat_interleave(BLOCK, 1).repeat_interleave(BLOCK, 2)
    y = torch.arange(_MARGIN, _MARGIN + height, device=v.device)[:, None] * columns
    at = start + y + torch.arange(_MARGIN, _MARGIN + width, device=v.device)
    flat = phases.reshape(b, -1)
    channels = [flat.gather(1, (at + i * rows * columns).flatten(1)) for i in range(c)]
    return torch.stack(channels, 1).view(b, c, height, width)


def compensate(reference: Tensor, vectors: Tensor) -> Tensor:
    """A picture with each block taken from where its vector points to.

    Args:
        reference: ``(B, C, H, W)``, H and W multiples of 16; it goes on beyond its border as at its border.
        vectors: ``(B, 2, H/16, W/16)`` integers, down and right, in half pixels, within :data:`REACH`.

    Returns:
        ``(B, C, H, W)``.
    """
    if not vectors.any():
        return reference
    return _gather(_phases(reference), vectors)


def search(picture: Tensor, reference: Tensor, price: Tensor | float) -> Tensor:
    """Vectors that make a reference look like a picture: coarse to fine, then as neighbours where that saves bits.

    Args:
        picture, reference: ``(B, 3, H, W)`` in 0..1, H and W multiples of 16.
        price: of a bit, in sums of absolute differences of a block (levels of 0..255); one number, or one a sample.

    Returns:
        ``(B, 2, H/16, W/16)`` int16, for :func:`compensate`.
    """
    with torch.no_grad():
        x, ref = (255.0 * t.float().mean(1, keepdim=True) for t in (picture, reference))
        price = torch.as_tensor(price, dtype=torch.float32, device=x.device).reshape(-1, 1, 1)
        phases = _phases(ref)
        whole = _whole(x, phases, _coarse(x, ref, price), price)
        return _agreeing(x, phases, _half(x, phases, whole, price), price).to(torch.int16)


def _bits(difference: Tensor) -> Tensor:
    """About how many bits a difference ``(B, 2, ...)`` of neighbouring vectors takes."""
    size = difference.abs().float()
    return (2.0 * torch.log2(1.0 + size) + (size > 0)).sum(1)


def _blocks(x: Tensor) -> Tensor:
    """``(B, 1, H, W)`` as blocks ``(B, H/16, W/16, 16, 16)``."""
    b, _, height, width = x.shape
    return x.view(b, height // BLOCK, BLOCK, width // BLOCK, BLOCK).transpose(2, 3)


def _sums(x: Tensor, moved: Tensor) -> Tensor:
    """Sums of absolute differences of blocks ``(B, h, w, 16, 16)``: ``(B, h, w)``."""
    return (x - moved).abs_().sum((3, 4))


def _coarse(x: Tensor, ref: Tensor, price: Tensor) -> Tensor:
    """Vectors ``(B, 2, h, w)`` in whole pixels, multiples of four, seen together with blocks around."""
    small, other = F.avg_pool2d(x, _COARSE), F.avg_pool2d(ref, _COARSE)
    other = F.pad(other, (_STEPS, _STEPS, _STEPS, _STEPS), mode="replicate")
    height, width = small.shape[2:]
    steps = [(dy, dx) for dy in range(-_STEPS, _STEPS + 1) for dx in range(-_STEPS, _STEPS + 1)]
    costs = torch.cat(
        [
            F.avg_pool2d(
                (small - other[:, :, s + dy : s + dy + height, s + dx : s + dx + width]).abs_(),
                BLOCK // _COARSE,
            )
            for s in (_STEPS,)
            for dy, dx in steps
        ],
        dim=1,
    )
    costs = 0.5 * costs + 0.5 * F.avg_pool2d(costs, 3, 1, 1, count_include_pad=False)
    offsets = _COARSE * torch.tensor(steps, device=x.device)
    costs = costs * BLOCK**2 + (price * _bits(2 * offsets.T[None])[:, None])[..., None].transpose(1, 2)
    return offsets[costs.argmin(1)].permute(0, 3, 1, 2)


def _windows(phase: Tensor, corner: Tensor, size: int) -> Tensor:
    """Squares of a phase ``(B, rows, columns)``, their corners moved by ``corner`` (B, 2, h, w) from the blocks'."""
    b, _, columns = phase.shape
    h, w = corner.shape[2:]
    y = corner[:, 0] + _MARGIN + BLOCK * torch.arange(h, device=phase.device)[:, None]
    x = corner[:, 1] + _MARGIN + BLOCK * torch.arange(w, device=phase.device)
    steps = torch.arange(size, device=phase.device)
    inside = steps[:, None] * columns + steps
    at = (y * columns + x)[..., None, None] + inside
    return phase.reshape(b, -1).gather(1, at.flatten(1)).view(b, h, w, size, size)


def _whole(x: Tensor, phases: Tensor, vectors: Tensor, price: Tensor) -> Tensor:
    """Vectors refined to whole pixels."""
    blocks = _blocks(x)
    windows = _windows(phases[:, 0, 0], vectors - _REFINE, BLOCK + 2 * _REFINE)
    side = 2 * _REFINE + 1
    steps = [(dy, dx) for dy in range(side) for dx in range(side)]
    costs = torch.stack(
        [_sums(blocks, windows[..., dy : dy + BLOCK, dx : dx + BLOCK]) for dy, dx in steps], 1
    )
    offsets = torch.tensor(steps, device=x.device) - _REFINE
    found = vectors[:, None] + offsets[None, :, :, None, None]
    bits = _bits(2 * found.transpose(1, 2))
    best = (costs + price[:, None] * bits).argmin(1, keepdim=True)
    return found.gather(1, best[:, :, None].expand(-1, -1, 2, -1, -1))[:, 0]


def _half(x: Tensor, phases: Tensor, vectors: Tensor, price: Tensor) -> Tensor:
    """Vectors in half pixels, refined to these."""
    blocks = _blocks(x)
    windows = [_windows(phases[:, phase, 0], vectors - 1, BLOCK + 1) for phase in range(4)]
    steps = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    costs = []
    for dy, dx in steps:
        window = windows[(dy & 1) * 2 + (dx & 1)]
        top, left = 1 + (dy >> 1), 1 + (dx >> 1)
        costs.append(_sums(blocks, window[..., top : top + BLOCK, left : left + BLOCK]))
    found = 2 * vectors[:, None] + torch.tensor(steps, device=x.device)[None, :, :, None, None]
    total = torch.stack(costs, 1) + price[:, None] * _bits(found.transpose(1, 2))
    best = total.argmin(1, keepdim=True)
    return found.gather(1, best[:, :, None].expand(-1, -1, 2, -1, -1))[:, 0]


def _agreeing(x: Tensor, phases: Tensor, vectors: Tensor, price: Tensor) -> Tensor:
    """Vectors taken over from a neighbour, or zero, where bits saved are worth the difference."""
    blocks = _blocks(x)

    def at(side: tuple[int, int, int, int]) -> Tensor:
        left, right, top, bottom = side
        padded = F.pad(vectors.float(), side, mode="replicate").to(vectors.dtype)
        height, width = padded.shape[2:]
        return padded[:, :, bottom : height - top, right : width - left]

    def cost(candidate: Tensor) -> Tensor:
        sums = _sums(blocks, _blocks(_gather(phases, candidate)))
        bits = _bits(candidate - before) + _bits(after - candidate)
        return sums + price * bits

    before, after = at((1, 0, 0, 0)), at((0, 1, 0, 0))
    best, found = cost(vectors), vectors
    for candidate in (before, at((0, 0, 1, 0)), after, at((0, 0, 0, 1)), torch.zeros_like(vectors)):
        new = cost(candidate)
        found = torch.where((new < best)[:, None], candidate, found)
        best = torch.minimum(new, best)
    return found
