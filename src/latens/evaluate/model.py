"""A model on a folder of images: real files by default, or what its entropy model estimates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from latens.errors import CodecError, DatasetError, LatensError
from latens.evaluate.bench import code
from latens.evaluate.codecs import Codec
from latens.evaluate.codecs.learned import ZooCodec
from latens.evaluate.quality import METRICS, find_images, measure, read_rgb
from latens.evaluate.results import compressai_results, machine, versions
from latens.io import printable

__all__ = ["Evaluation", "evaluate"]


@dataclass(frozen=True)
class Evaluation:
    """What a model reaches.

    Attributes:
        settings: that were evaluated.
        images: by name, for each setting ``bpp``, ``bytes``, the measures, and ``encode_s`` and ``decode_s``, the
            medians of the times in seconds.
        unreadable: images that could not be read, with the reason.
        absent: measures that could not be had, of some images at least, with the reason.
        description: what was done.
    """

    settings: tuple[float, ...]
    images: Mapping[str, Sequence[Mapping[str, Any]]]
    unreadable: Mapping[str, str]
    absent: Mapping[str, str]
    description: str

    def means(self) -> list[dict[str, float]]:
        """For each setting the means over the images of all that every image has."""
        found = []
        for rows in zip(*self.images.values(), strict=True):
            keys = [k for k in rows[0] if all(row.get(k) is not None for row in rows)]
            found.append({key: sum(row[key] for row in rows) / len(rows) for key in keys})
        return found

    def to_dict(self, name: str, *, per_image: bool = False) -> dict[str, Any]:
        """In CompressAI's layout, with what it lacks in further keys."""
        content = compressai_results(name, self.description, self.means())
        content["settings"] = list(self.settings)
        content["images"] = (
            {image: list(rows) for image, rows in self.images.items()} if per_image else list(self.images)
        )
        content["unreadable"] = dict(self.unreadable)
        content["absent"] = dict(self.absent)
        content["machine"] = machine()
        content["versions"] = versions()
        return content


def evaluate(
    codec: Codec,
    folder: Path,
    settings: Sequence[float] = (),
    *,
    estimate: bool = False,
    repeats: int = 1,
    progress: Callable[[int, int, str], None] = lambda done, total, text: None,
) -> Evaluation:
    """Measure a codec on all images of a folder, in this process.

    Args:
        codec: a model, or any other codec.
        folder: of images, or one image.
        settings: of the codec's dial; its own points by default.
        estimate: take the rate from the likelihoods instead of coding. Architectures of the zoo only.
        repeats: how often to encode and decode; a first time does not count.
        progress: called with files done, files to do, and the image.

    Raises:
        DatasetError: no images, or none that can be read.
        CodecError: a setting beyond the dial, or an estimate of a codec that has none.
    """
    settings = tuple(settings) or codec.dial.points
    for setting in settings:
        if not codec.dial.low <= setting <= codec.dial.high:
            limits = f"{codec.dial.low:g} to {codec.dial.high:g}"
            raise CodecError(f"{printable(codec.spec)}: {codec.dial.name} {setting:g} is not in {limits}")
    if estimate and not isinstance(codec, ZooCodec):
        raise CodecError(f"{printable(codec.spec)}: rates are estimated for architectures of the zoo only")
    paths = find_images(folder)
    images: dict[str, list[dict[str, Any]]] = {path.name: [] for path in paths}
    unreadable: dict[str, str] = {}
    absent: dict[str, str] = {}
    # Settings in the outer loop: a model for each of them is loaded only once.
    for number, setting in enumerate(settings):
        for place, path in enumerate(paths):
            progress(number * len(paths) + place, len(settings) * len(paths), path.name)
            if path.name in unreadable:
                continue
            try:
                pixels = read_rgb(path)
            except LatensError as error:
                unreadable[path.name] = str(error)
                continue
            row: dict[str, Any]
            if estimate and isinstance(codec, ZooCodec):
                bpp, decoded = codec.estimate(pixels, setting)
                row = {"bpp": bpp}
            else:
                if number == place == 0:  # warm-up
                    codec.decode(codec.encode(pixels, setting), pixels.shape[:2], setting)
                data, decoded, encode_s, decode_s = code(codec, pixels, setting, repeats)
                row = {
                    "bytes": len(data),
                    "bpp": 8 * len(data) / (pixels.shape[0] * pixels.shape[1]),
                    "encode_s": median(encode_s),
                    "decode_s": median(decode_s),
                }
            images[path.name].append(row | measure(pixels, decoded, METRICS, absent))
    for name in unreadable:
        del images[name]
    if not images:
        raise DatasetError(f"{printable(folder)}: none of its images can be read")
    description = "Estimated by the entropy model" if estimate else "Real files"
    return Evaluation(tuple(settings), images, unreadable, absent, f"{description}. {codec.version()}")
