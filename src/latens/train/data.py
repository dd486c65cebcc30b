"""Training photographs, decoded once and kept as bytes in memory, on a GPU if there is room; crops are cut there."""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from latens.errors import TrainingError
from latens.io import atomic_write, printable, read_image

__all__ = ["IMAGE_SUFFIXES", "CropSampler", "PhotoPool", "decode_image", "read_content"]

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".ppm"}
_FORMATS = ["PNG", "JPEG", "WEBP", "AVIF", "BMP", "TIFF", "PPM"]


def _files(source: Path) -> Iterator[tuple[str, bytes | None]]:
    """(name, content) of every image below a folder; ``.tar`` archives count as folders. No content: unreadable."""
    if source.is_dir():
        for path in sorted(source.rglob("*")):
            if path.is_dir():
                continue
            if path.suffix.lower() in IMAGE_SUFFIXES:
                yield path.name, read_content(path)
            elif path.suffix.lower() == ".tar":
                yield from _members(path)
    elif source.suffix.lower() == ".tar" and source.is_file():
        yield from _members(source)
    else:
        raise TrainingError(f"{printable(source)}: expected a folder of images or a .tar archive of them")


def read_content(path: Path) -> bytes | None:
    """What a file holds; None if it cannot be read."""
    try:
        return path.read_bytes() if path.is_file() else None  # a pipe would keep us waiting
    except OSError:
        return None


def _members(archive: Path) -> Iterator[tuple[str, bytes | None]]:
    try:
        with tarfile.open(archive) as opened:
            for member in opened:
                content = opened.extractfile(member) if member.isfile() else None
                if content is not None and Path(member.name).suffix.lower() in IMAGE_SUFFIXES:
                    yield Path(member.name).name, content.read()
    except (tarfile.TarError, OSError, EOFError):
        yield archive.name, None  # damaged; what came before is good


def decode_image(content: bytes | None) -> npt.NDArray[np.uint8] | None:
    """The pixels of an image file ``(H, W, 3)``; None if there are none."""
    if content is None:
        return None
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            if image.mode[0] in "IF":
                # More than 8 bits, which Pillow would cut off at 255: all white.
                pixels = read_image(content, frame=0).to_8_bits().pixels
                return np.broadcast_to(pixels, (*pixels.shape[:2], 3))
            return np.asarray(image.convert("RGB"))
    except Exception:  # Pillow raises many kinds; an unreadable file is skipped and listed by the caller
        return None


@dataclass
class PhotoPool:
    """All images of one or more sources as one flat byte array.

    Attributes:
        names: file name of each image.
        sizes: ``(n, 2)`` height and width.
        weights: ``(n,)`` how often each image is drawn: the square root of its file size, so that photographs
            full of detail come up more often than flat graphics.
        pixels: all images, row by row, RGB, one after the other.
        skipped: names of files that could not be read.
        starts: ``(n + 1,)`` where each image begins in ``pixels``, and their end.
    """

    names: list[str]
    sizes: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64]
    pixels: npt.NDArray[np.uint8]
    skipped: list[str]

    def __post_init__(self) -> None:
        self.starts = np.concatenate([[0], np.cumsum(self.sizes.prod(1) * 3)])

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> npt.NDArray[np.uint8]:
        height, width = self.sizes[i]
        return self.pixels[self.starts[i] : self.starts[i + 1]].reshape(height, width, 3)

    def subset(self, keep: list[int]) -> "PhotoPool":
        """A pool of only these images (copied)."""
        pixels = np.concatenate([self[i].reshape(-1) for i in keep]) if keep else self.pixels[:0]
        return PhotoPool([self.names[i] for i in keep], self.sizes[keep], self.weights[keep], pixels, [])

    @classmethod
    def load(cls, source: Path, cache: Path | None = None) -> "PhotoPool":
        """Decode everything in ``source``; with ``cache`` the pixels are kept in that folder and mapped.

        Raises:
            TrainingError: no readable image was found.
        """
        files = list(_files(source))
        key = hashlib.sha256(json.dumps([(n, len(c or b"")) for n, c in files]).encode()).hexdigest()[:16]
        listing = cache / f"pool-{key}.json" if cache else None
        if listing is not None and (cached := cls._cached(listing)) is not None:
            return cached
        names, sizes, weights, parts, skipped = [], [], [], [], []
        with ThreadPoolExecutor(2) as pool:
            for (name, content), image in zip(
                files, pool.map(decode_image, (c for _, c in files)), strict=True
            ):
                if content is None or image is None:
                    skipped.append(name)
                    continue
                names.append(name)
                sizes.append(image.shape[:2])
                weights.append(len(content) ** 0.5)
                parts.append(image.reshape(-1))
        if not names:
            raise TrainingError(
                f"{printable(source)}: no image in it that can be read ({len(skipped)} files could not be read)"
            )
        result = cls(names, np.array(sizes, np.int64), np.array(weights), np.concatenate(parts), skipped)
        if listing is not None:
            result._keep(listing)
        return result

    @classmethod
    def _cached(cls, listing: Path) -> "PhotoPool | None":
        try:
            meta = json.loads(listing.read_text())
            # Copied on write, which nobody does; torch shares memory only with what could be written.
            pixels = np.load(listing.with_suffix(".npy"), mmap_mode="c")
            sizes = np.array(meta["sizes"], np.int64)
            pool = cls(meta["names"], sizes, np.array(meta["weights"]), pixels, meta["skipped"])
        except (OSError, EOFError, ValueError, KeyError, TypeError):
            return None  # not there, or damaged: decoded anew
        return pool if pool.starts[-1] == pixels.size else None

    def _keep(self, listing: Path) -> None:
        """The listing comes last and at once: without it the pixels do not count."""
        meta = {
            "names": self.names,
            "sizes": self.sizes.tolist(),
            "weights": self.weights.tolist(),
            "skipped": self.skipped,
        }
        try:
            listing.parent.mkdir(parents=True, exist_ok=True)
            listing.unlink(missing_ok=True)
            np.save(listing.with_suffix(".npy"), self.pixels)
        except OSError as error:
            raise TrainingError(
                f"{printable(listing.parent)}: cannot keep pixels ({error.strerror})"
            ) from error
        atomic_write(listing, json.dumps(meta).encode())


class _Cut(NamedTuple):
    """Where a crop comes from: a square of ``side`` pixels of a photograph, flipped, then turned."""

    photo: int
    side: int
    top: int
    left: int
    turns: int
    flip: bool


class CropSampler:
    """Random crops of a pool. The crops of a step depend only on seed and step, so a resumed run repeats them.

    Half of the crops are downscaled by a random factor of 0.5 to 1, which gives sharp, noise-free pixels;
    all are flipped and turned at random.

    Args:
        pool: where to cut from. Images smaller than a crop are padded by mirroring.
        batch: crops per step.
        seed: any integer.
        device: where crops are wanted. The pool's pixels are copied there if that takes no more than a third of
            the free memory.
    """

    def __init__(self, pool: PhotoPool, batch: int, seed: int, device: torch.device | str = "cpu") -> None:
        self.pool, self.batch, self.seed, self.device = pool, batch, seed, torch.device(device)
        self._cumulative = np.cumsum(pool.weights / pool.weights.sum())
        self._pixels = torch.from_numpy(pool.pixels)
        if self.device.type == "cuda" and 3 * pool.pixels.nbytes <= torch.cuda.mem_get_info(self.device)[0]:
            self._pixels = self._pixels.to(self.device)

    def __call__(
        self, step: int, crop: int, batch: int | None = None, chosen: Sequence[int] | None = None
    ) -> Tensor:
        """Crops of one step: ``(batch, 3, crop, crop)`` float32 in 0..1.

        Args:
            step: which.
            crop: side in pixels.
            batch: number of crops, if not the usual one.
            chosen: return only these, in this order.
        """
        batch = self.batch if batch is None else batch
        rng = np.random.default_rng([self.seed, step])
        cuts = [self._draw(rng, crop) for _ in range(batch)]
        return torch.stack([self._cut(cuts[i], crop) for i in (range(batch) if chosen is None else chosen)])

    def _draw(self, rng: np.random.Generator, crop: int) -> _Cut:
        index = min(int(np.searchsorted(self._cumulative, rng.random())), len(self.pool) - 1)
        height, width = (int(size) for size in self.pool.sizes[index])
        side = crop
        if rng.random() < 0.5:
            side = max(crop, min(round(crop / rng.uniform(0.5, 1.0)), height, width))
        top = int(rng.integers(0, max(height - side, 0) + 1))
        left = int(rng.integers(0, max(width - side, 0) + 1))
        return _Cut(index, side, top, left, int(rng.integers(4)), bool(rng.integers(2)))

    def _cut(self, cut: _Cut, crop: int) -> Tensor:
        height, width = (int(size) for size in self.pool.sizes[cut.photo])
        start = int(self.pool.starts[cut.photo])
        image = self._pixels[start : start + height * width * 3].view(height, width, 3)
        patch = image[cut.top : cut.top + cut.side, cut.left : cut.left + cut.side]
        for axis in (0, 1):
            if patch.shape[axis] < cut.side:
                mirrored = np.pad(
                    np.arange(patch.shape[axis]), (0, cut.side - patch.shape[axis]), mode="symmetric"
                )
                patch = patch.index_select(axis, torch.from_numpy(mirrored).to(patch.device))
        patch = torch.rot90(patch.flip(1) if cut.flip else patch, cut.turns)
        x = patch.to(self.device).permute(2, 0, 1)[None].float()
        if cut.side != crop:
            x = F.interpolate(x, (crop, crop), mode="bilinear", antialias=True).round_()
        return x[0].div_(255.0)
