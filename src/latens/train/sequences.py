"""Short sequences to train video models on: clips, folders of frames, and photographs that are set in motion."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from latens.errors import LatensError, TrainingError
from latens.io import VIDEO_FORMATS, printable
from latens.train.data import IMAGE_SUFFIXES, CropSampler, PhotoPool, decode_image, read_content

__all__ = ["Clip", "ClipPool", "SequenceSampler"]

Frames = npt.NDArray[np.uint8]

_MAX_FRAMES = 600
_MARGIN = 32  # pixels around a crop of a photograph for it to move in
_MAX_STRIDE = 3


class Clip(NamedTuple):
    """A clip, its frames in memory or in files.

    Attributes:
        name: of the file or folder.
        frames: ``(n, H, W, 3)`` of a video file; None if they are files.
        files: one for each frame, of a folder.
    """

    name: str
    frames: Frames | None
    files: tuple[Path, ...] = ()

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.files) if self.frames is None else len(self.frames)

    def read(self, numbers: Sequence[int]) -> list[Frames]:
        """Some frames, ``(H, W, 3)`` each.

        Raises:
            TrainingError: a file cannot be read, or frames differ in size.
        """
        if self.frames is not None:
            return [self.frames[n] for n in numbers]
        found: list[Frames] = []
        for path in (self.files[n] for n in numbers):
            image = decode_image(read_content(path))
            if image is None or (found and image.shape != found[0].shape):
                raise TrainingError(
                    f"{printable(path)}: cannot be read, or of another size than its neighbours"
                )
            found.append(image)
        return found


class ClipPool:
    """All clips below a folder: video files (their first 600 frames), and folders that hold at least two images.

    Vimeo-90k's septuplets are such folders. Video files are decoded once, folders whenever frames are wanted.

    Args:
        source: the folder.
        cache: where decoded video files are kept and mapped from; in memory if None.

    Attributes:
        clips: in the order of their names.
        skipped: names of files that could not be read.

    Raises:
        TrainingError: no folder, or no clip in it.
    """

    def __init__(self, source: Path, cache: Path | None = None) -> None:
        if not source.is_dir():
            raise TrainingError(f"{printable(source)}: expected a folder of clips, or of folders of frames")
        self.clips: list[Clip] = []
        self.skipped: list[str] = []
        folders: dict[Path, list[Path]] = {}
        for path in sorted(source.rglob("*")):
            suffix = path.suffix.lower()
            if suffix in VIDEO_FORMATS and path.is_file():
                try:
                    self.clips.append(Clip(path.name, _frames_of(path, cache)))
                except LatensError:
                    self.skipped.append(path.name)
            elif suffix in IMAGE_SUFFIXES and path.is_file():
                folders.setdefault(path.parent, []).append(path)
        for folder, images in folders.items():
            # im1, im2, ... im10: by number.
            images.sort(key=lambda path: (len(path.stem), path.stem))
            self.clips.append(Clip(str(folder.relative_to(source)), None, tuple(images)))
        self.clips = [clip for clip in self.clips if len(clip) >= 2]
        if not self.clips:
            raise TrainingError(
                f"{printable(source)}: no clip of at least two frames in it that can be read "
                f"({len(self.skipped)} files could not be read)"
            )


def _frames_of(path: Path, cache: Path | None) -> Frames:
    """The frames of a video file as RGB, 8 bits."""
    from latens.io import VideoSource
    from latens.runtime.planes import rgb_from_planes

    status = path.stat()
    key = hashlib.sha256(f"{path.absolute()}\n{status.st_size}\n{status.st_mtime_ns}".encode()).hexdigest()[
        :16
    ]
    kept = None if cache is None else cache / f"clip-{key}.npy"
    if kept is not None and kept.exists():
        try:
            found: Frames = np.load(kept, mmap_mode="r")
        except (OSError, ValueError, EOFError):
            kept.unlink(missing_ok=True)  # damaged: decoded anew
        else:
            return found
    frames = []
    with VideoSource(str(path)) as source:
        info = source.info
        for frame in source.frames():
            rgb = rgb_from_planes(frame.planes, info.chroma, info.bit_depth, info.colour)
            frames.append(((rgb.astype(np.uint32) * 255 + 32_767) // 65_535).astype(np.uint8))
            if len(frames) == _MAX_FRAMES:
                break
    decoded = np.stack(frames)
    if kept is not None:
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            temporary = kept.with_suffix(".tmp.npy")
            np.save(temporary, decoded)
            temporary.replace(kept)
        except OSError as error:
            raise TrainingError(f"{printable(kept.parent)}: cannot keep frames ({error.strerror})") from error
    return decoded


class SequenceSampler:
    """Random sequences from clips and photographs. Those of a step depend only on seed and step.

    Clips are cut anywhere, at every, every second or every third frame, forwards or backwards; half of the crops are
    downscaled, and all are flipped and turned at random. Photographs are panned, zoomed and turned at random speed,
    while a patch of another one moves in front of them; noise and brightness change from frame to frame.

    Args:
        photos: may be None, if there are clips.
        clips: may be empty, if there are photographs.
        batch: sequences per step.
        share: of sequences that come from clips, if there are both.
        seed: any integer.
        device: where sequences are wanted.
    """

    def __init__(
        self,
        photos: PhotoPool | None,
        clips: Sequence[Clip],
        batch: int,
        share: float,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.photos, self.clips = photos, clips
        self.batch, self.seed, self.device = batch, seed, torch.device(device)
        self.share = 0.0 if not clips else 1.0 if photos is None else share
        self._stills = None if photos is None else CropSampler(photos, batch, seed)
        weights = np.sqrt([len(clip) for clip in clips])
        self._cumulative = np.cumsum(weights / weights.sum()) if clips else np.zeros(0)

    def __call__(
        self, step: int, crop: int, frames: int, batch: int | None = None, chosen: Sequence[int] | None = None
    ) -> Tensor:
        """Sequences of one step, ``(batch, 3 * frames, crop, crop)`` float32 in 0..1: channels of all frames in turn.

        Args:
            step: which.
            crop: side in pixels.
            frames: per sequence; a clip that is shorter goes back and forth.
            batch: number of sequences, if not the usual one.
            chosen: return only these, in this order.
        """
        batch = self.batch if batch is None else batch
        numbers = range(batch) if chosen is None else chosen
        found = [self._sequence(np.random.default_rng([self.seed, step, i]), crop, frames) for i in numbers]
        return torch.stack(found).to(self.device)

    def _sequence(self, rng: np.random.Generator, crop: int, frames: int) -> Tensor:
        made = self._from_clip if rng.random() < self.share else self._from_photo
        return made(rng, crop, frames).mul_(255.0).round_().clamp_(0, 255).div_(255.0).flatten(0, 1)

    def _from_clip(self, rng: np.random.Generator, crop: int, frames: int) -> Tensor:
        clip = self.clips[min(int(np.searchsorted(self._cumulative, rng.random())), len(self.clips) - 1)]
        strides = max(1, min(_MAX_STRIDE, (len(clip) - 1) // max(frames - 1, 1)))
        # Mostly every frame: that is what will be coded.
        stride = 1 if rng.random() < 0.6 else int(rng.integers(1, strides + 1))
        start = int(rng.integers(max(len(clip) - stride * (frames - 1), 1)))
        numbers = [_mirrored(start + stride * t, len(clip)) for t in range(frames)]
        pictures = clip.read(numbers[::-1] if rng.integers(2) else numbers)
        height, width = pictures[0].shape[:2]
        side = crop
        if rng.random() < 0.5:
            side = max(crop, min(round(crop / rng.uniform(0.5, 1.0)), height, width))
        top = int(rng.integers(max(height - side, 0) + 1))
        left = int(rng.integers(max(width - side, 0) + 1))
        cut = np.stack([picture[top : top + side, left : left + side] for picture in pictures])
        missing = [(0, side - n) for n in cut.shape[1:3]]
        if any(after for _, after in missing):
            cut = np.pad(cut, ((0, 0), *missing, (0, 0)), mode="symmetric")
        x = torch.from_numpy(np.ascontiguousarray(cut)).permute(0, 3, 1, 2).float().div_(255.0)
        if side != crop:
            x = F.interpolate(x, (crop, crop), mode="bilinear", antialias=True)
        return torch.rot90(x.flip(3) if rng.integers(2) else x, int(rng.integers(4)), (2, 3))

    def _from_photo(self, rng: np.random.Generator, crop: int, frames: int) -> Tensor:
        still = self._stills
        if still is None:
            raise TrainingError("there are no photographs")
        stage = crop + 2 * _MARGIN
        back, front = (still._cut(still._draw(rng, stage), stage)[None] for _ in range(2))
        # Most things move little; some fast.
        paths = [_path(rng, frames) for _ in range(2)]
        moved = [_move(picture, path, crop) for picture, path in zip((back, front), paths, strict=True)]
        mask = _ellipse(rng, stage) if rng.random() < 0.6 else torch.zeros(1, 1, stage, stage)
        cover = _move(mask, paths[1], crop)
        x = torch.lerp(moved[0], moved[1], cover)
        if rng.random() < 0.3:
            x = x * (1.0 + torch.from_numpy(rng.normal(0, 0.01, (frames, 1, 1, 1))).float())
        level = rng.uniform(0, 3.0) / 255.0 if rng.random() < 0.5 else 0.0
        if level:
            x = x + level * torch.from_numpy(rng.standard_normal(x.shape, np.float32))
        return x


def _mirrored(number: int, count: int) -> int:
    """A number of a frame, back and forth where there are no more."""
    if count == 1:
        return 0
    number %= 2 * (count - 1)
    return number if number < count else 2 * (count - 1) - number


def _path(rng: np.random.Generator, frames: int) -> Tensor:
    """Affine maps ``(frames, 2, 3)`` in pixels: a pan of constant speed with some zoom and turning."""
    reach = _MARGIN / max(frames - 1, 1)
    speed = (
        0.0 if rng.random() < 0.2 else min(math.exp(rng.uniform(math.log(0.1), math.log(12.0))), reach - 1.0)
    )
    direction = rng.uniform(0, 2 * math.pi)
    zoom, turn = (rng.normal(0, 0.004, 2) if rng.random() < 0.4 else np.zeros(2)).tolist()
    maps = []
    for t in range(frames):
        scale, angle = math.exp(zoom * t), turn * t
        c, s = scale * math.cos(angle), scale * math.sin(angle)
        shift = speed * t * math.cos(direction), speed * t * math.sin(direction)
        maps.append([[c, -s, shift[0]], [s, c, shift[1]]])
    return torch.tensor(maps, dtype=torch.float32)


def _move(picture: Tensor, path: Tensor, crop: int) -> Tensor:
    """The middle of a square picture ``(1, C, S, S)`` as it moves along a path: ``(frames, C, crop, crop)``."""
    side = picture.shape[2]
    axis = torch.arange(crop, dtype=torch.float32) - (crop - 1) / 2
    at = torch.stack([*torch.meshgrid(axis, axis, indexing="xy"), torch.ones(crop, crop)], -1)
    grid = torch.einsum("tij,hwj->thwi", path, at) * (2.0 / side)
    given = picture.expand(len(path), -1, -1, -1)
    return F.grid_sample(given, grid, mode="bicubic", padding_mode="reflection", align_corners=False)


def _ellipse(rng: np.random.Generator, side: int) -> Tensor:
    """1 within an ellipse somewhere in the middle, 0 outside, soft for some pixels between: ``(1, 1, side, side)``."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    cy, cx = side / 2 + rng.uniform(-0.3, 0.3, 2) * side
    ry, rx = rng.uniform(0.08, 0.3, 2) * side
    radius = (((y - cy) / ry).square() + ((x - cx) / rx).square()).sqrt()
    soft: Tensor = (1.0 - radius) * min(ry, rx) / rng.uniform(1.0, 4.0) + 0.5
    return soft.clamp(0, 1)[None, None].float()
