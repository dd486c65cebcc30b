"""Fit the map from latents to small copies for a set of weights, by least squares; to be repeated for each set.

    python tools/fit_preview.py latens-eye-1 PHOTOS

PHOTOS is a folder of photographs that the weights were not judged by; those that training held back do. Every fourth
one is left out of the fit, and tells how good it is. The file goes to where the package has its weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import latens.zoo
from latens.io import read_image
from latens.runtime.networks import Product
from latens.runtime.released import ReleasedPictures
from latens.zoo.preview import BITS, Preview, file_name
from latens.zoo.weights import load

QUALITIES = (10.0, 30.0, 50.0, 65.0, 80.0, 92.0)
SIDE = 512  # of what is taken of a photograph, from its middle
UNIT = 2048.0  # of values of the latent, to keep the sums near 1
DAMPING = 1e-2


def examples(model: ReleasedPictures, path: Path) -> Iterator[tuple[float, np.ndarray, np.ndarray]]:
    """For each quality: it, the latents ``(n, 9 C + 1)``, and what they should give, ``(n, 12)``, of 0 to 1."""
    pixels = read_image(path, frame=0).to_8_bits().pixels
    pixels = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    height, width = (min(side, SIDE) // 64 * 64 for side in pixels.shape[:2])
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    pixels = np.ascontiguousarray(pixels[top : top + height, left : left + width])
    features = _through(model.analysis(width, np.uint8, 3), pixels)
    for quality in QUALITIES:
        level = model.level(quality)
        rows = model.encode(model.latent(features, level), level, 1).rows
        decoded = _through(model.synthesis(width // 16, level, np.uint16, 3), rows)
        small = decoded.reshape(height // 16, 2, 8, width // 16, 2, 8, 3).mean(axis=(2, 5)) / 65535
        wanted = small.transpose(0, 2, 1, 3, 4).reshape(-1, 12)
        bordered = np.pad(rows.astype(np.float32) / UNIT, ((1, 1), (1, 1), (0, 0)))
        near = [
            bordered[row : row + rows.shape[0], column : column + rows.shape[1]]
            for row in range(3)
            for column in range(3)
        ]
        given = np.concatenate(near, axis=2).reshape(len(wanted), -1)
        yield quality, np.concatenate([given, np.ones((len(given), 1), np.float32)], axis=1), wanted


def _through(stream: object, rows: np.ndarray) -> np.ndarray:
    parts = (stream.push(rows), stream.finish())  # type: ignore[attr-defined]
    return np.concatenate([part for part in parts if len(part)])


def product(solution: np.ndarray, channels: int) -> Product:
    """The map in integers: as many bits as its sums leave room for."""
    scale = (1 << BITS) / UNIT
    weight = solution[:-1].T.reshape(12, 3, 3, channels) * scale
    bias = solution[-1] * (1 << BITS)
    most = np.abs(weight).sum(axis=(1, 2, 3)) * 32768 + np.abs(bias) + 1
    shift = np.minimum(
        np.floor(np.log2(0.98 * 2**31 / most)), np.floor(np.log2(32767 / np.abs(weight).max()))
    )
    shift = shift.clip(1, 30)
    return Product(
        np.rint(weight * 2.0 ** shift[:, None, None, None]).astype(np.int16),
        np.rint(bias * 2.0**shift).astype(np.int32),
        shift.astype(np.uint8),
    )


def main() -> None:
    """Fit, tell, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="identifier of a released model, or a weights file")
    parser.add_argument("photos", type=Path)
    parser.add_argument("-o", "--output", type=Path, help="folder; that of the package by default")
    options = parser.parse_args()
    model = load(options.model)
    assert isinstance(model, ReleasedPictures)
    size = 9 * model.channels + 1
    matrix, right = np.zeros((size, size)), np.zeros((size, 12))
    kept: list[tuple[float, np.ndarray, np.ndarray]] = []
    for number, path in enumerate(sorted(path for path in options.photos.iterdir() if path.is_file())):
        for quality, given, wanted in examples(model, path):
            if number % 4 == 3:
                kept.append((quality, given, wanted))
            else:
                matrix += given.T @ given
                right += given.T @ wanted
    solution = np.linalg.solve(matrix + DAMPING * np.eye(size), right)
    made = Preview(model.weights_id, product(solution, model.channels))
    for quality in QUALITIES:
        errors = [np.mean((given @ solution - wanted) ** 2) for q, given, wanted in kept if q == quality]
        print(
            f"quality {quality:g}: {-10 * np.log10(np.mean(errors)):.2f} dB against means of the decoded picture"
        )
    folder = options.output or Path(latens.zoo.__file__).parent / "data"
    path = folder / file_name(model.weights_id)
    path.write_bytes(made.file())
    print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
