"""The result store: one JSON file that says what was measured, with what, where and by which command.

Two layouts of others are read as well: that of CompressAI (``{"name", "description", "results": {...}}``, a curve
without single images) and collections of curves (``{"curves": {name: {"bpp", "psnr_rgb_db", ...}}}``).
"""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from pathlib import Path
from statistics import median
from typing import Any

from latens.errors import CurveError, ResultsError
from latens.evaluate.quality import METRICS
from latens.io import atomic_write, printable
from latens.metrics import bd_psnr, bd_rate

__all__ = ["Curve", "Results", "compressai_results", "machine", "read_curves", "table"]

FORMAT = "latens-results"
VERSION = 1
_MAX_BYTES = 256 << 20
_LEAST_POINTS = 4
_PACKAGES = ("latens", "torch", "numpy", "pillow", "imageio-ffmpeg", "pillow-jxl-plugin")


def machine() -> dict[str, Any]:
    """What the machine is: processor, cores, system. Its name in the network stays out."""
    processor = platform.processor() or platform.machine()
    about = Path("/proc/cpuinfo")
    if about.exists():
        lines = about.read_text(errors="replace").splitlines()
        models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        processor = next(models, processor)
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Of Python and of the packages that matter."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = package_version(package)
        except PackageNotFoundError:
            continue
    return found


@dataclass
class Results:
    """Everything of one or several runs.

    Attributes:
        runs: machine, versions, command, threads, jobs, repeats of each run.
        images: by name: width, height, and SHA-256 of the RGB samples.
        codecs: by specification: version, options, dial, colour handling, what times include.
        points: one per codec, image and setting: size in bytes, bits per pixel, measures, times in seconds.
        failures: codec, image, setting and reason.
        skipped: codecs that could not be used, with the reason.
        unreadable: images that could not be read, with the reason.
        absent: measures that were asked for and could not be had, of some images at least, with the reason.
        folder: of the images, as it was given.
        files: folder with the coded files, relative to the results; empty if they were not kept.
    """

    runs: list[dict[str, Any]] = field(default_factory=list)
    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    codecs: dict[str, dict[str, Any]] = field(default_factory=dict)
    points: list[dict[str, Any]] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    folder: str = ""
    files: str = ""

    def save(self, path: Path) -> None:
        """Write the whole file anew.

        Raises:
            OutputError: it cannot be written.
        """
        content = {"format": FORMAT, "version": VERSION, **vars(self)}
        lines = json.dumps(content, indent=None, separators=(",", ":"), allow_nan=False)
        # One line per point: small, and still readable and easy to compare.
        text = lines.replace('},{"codec":', '},\n{"codec":').replace('"points":[', '"points":[\n')
        atomic_write(path, (text + "\n").encode(), force=True)

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read a results file.

        Raises:
            ResultsError: it is none, it is damaged, or of a newer version.
        """
        content = _json(path)
        shown = printable(path)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ResultsError(f"{shown}: not a results file of 'latens bench' or 'latens eval'")
        if not isinstance(content.get("version"), int) or content["version"] > VERSION:
            raise ResultsError(
                f"{shown}: version {printable(str(content.get('version')))} of the layout, but this release knows "
                f"{VERSION}; a newer Latens reads it"
            )
        empty = cls()
        given = {}
        for name, default in vars(empty).items():
            value = content.get(name, default)
            if type(value) is not type(default):
                raise ResultsError(f"{shown}: {name}: expected {type(default).__name__}")
            given[name] = value
        results = cls(**given)
        results._check(shown)
        return results

    def _check(self, shown: str) -> None:
        """What other code relies on."""
        for number, point in enumerate(self.points):
            good = (
                isinstance(point, dict)
                and point.get("codec") in self.codecs
                and point.get("image") in self.images
                and all(_is_number(point.get(key)) and point[key] >= 0 for key in ("setting", "bytes", "bpp"))
                and all(
                    isinstance(point.get(key, []), list) and all(map(_is_number, point.get(key, [])))
                    for key in ("encode_s", "decode_s")
                )
                and all(point.get(k) is None or _is_number(point[k]) for k in (*METRICS, "matched"))
                and isinstance(point.get("run"), int)
                and 0 <= point["run"] < len(self.runs)
            )
            if not good:
                raise ResultsError(f"{shown}: point {number} is damaged")
        for name, image in self.images.items():
            if not isinstance(image, dict) or not all(_is_number(image.get(k)) for k in ("width", "height")):
                raise ResultsError(f"{shown}: image {printable(name)} is damaged")
        for number, failure in enumerate(self.failures):
            if not isinstance(failure, dict) or not (
                all(isinstance(failure.get(key), str) for key in ("codec", "image", "reason"))
                and _is_number(failure.get("setting"))
            ):
                raise ResultsError(f"{shown}: failure {number} is damaged")
        texts = [*self.absent.values(), *self.skipped.values(), *self.unreadable.values()]
        if not all(isinstance(text, str) for text in texts):
            raise ResultsError(f"{shown}: a reason is damaged")
        if not all(isinstance(about, dict) for about in (*self.codecs.values(), *self.runs)):
            raise ResultsError(f"{shown}: damaged")

    def done(self) -> set[tuple[str, str, float]]:
        """What need not be measured again."""
        return {(p["codec"], p["image"], p["setting"]) for p in self.points}

    def curves(self, metric: str = "psnr_rgb") -> dict[str, Curve]:
        """The mean curve of each codec, by specification.

        The field's convention: at each setting the mean of bits per pixel and of the measure over the images. A
        setting counts only if all images that have any result of that codec have it, without loss left out.
        """
        found = {}
        for codec in self.codecs:
            rows: dict[float, list[dict[str, Any]]] = {}
            for point in self.points:
                if point["codec"] == codec and not point.get("matched"):
                    rows.setdefault(point["setting"], []).append(point)
            count = max(map(len, rows.values()), default=0)
            curve = Curve(codec)
            for setting, points in rows.items():
                if len(points) < count or any(p.get(metric) is None for p in points):
                    continue
                curve.settings.append(setting)
                curve.bpp.append(_mean(p["bpp"] for p in points))
                curve.quality.append(_mean(p[metric] for p in points))
                for key, times in (("encode_s", curve.encode_s), ("decode_s", curve.decode_s)):
                    if all(p.get(key) for p in points):
                        times.append(_mean(median(p[key]) for p in points))
            if curve.bpp:
                found[codec] = curve.sorted()
        return found

    def merge(self, other: Results) -> None:
        """Add the results of another file; of two results for the same codec, image and setting the first counts.

        Raises:
            ResultsError: an image of the same name is another one, or a codec has another version.
        """
        for name, image in other.images.items():
            known = self.images.setdefault(name, image)
            if known.get("sha256") != image.get("sha256"):
                raise ResultsError(f"{printable(name)} is not the same image in all results")
        for spec, about in other.codecs.items():
            known = self.codecs.setdefault(spec, about)
            if known.get("version") != about.get("version"):
                raise ResultsError(
                    f"{printable(spec)}: version {printable(str(known.get('version')))} in one file, "
                    f"{printable(str(about.get('version')))} in another; report them apart"
                )
        have, first = self.done(), len(self.runs)
        self.runs += other.runs
        for point in other.points:
            if (point["codec"], point["image"], point["setting"]) not in have:
                self.points.append({**point, "run": point["run"] + first})
        counted = self.done() | {_place(failure) for failure in self.failures}
        self.failures += [failure for failure in other.failures if _place(failure) not in counted]
        self.skipped |= other.skipped
        self.unreadable |= other.unreadable
        self.absent |= other.absent

    def machines(self) -> list[str]:
        """The different machines, as text."""
        found = [", ".join(str(v) for v in run.get("machine", {}).values()) for run in self.runs]
        return list(dict.fromkeys(found))


@dataclass
class Curve:
    """Rates and a measure at them.

    Attributes:
        name: of the codec.
        bpp: bits per pixel.
        quality: PSNR in dB, or another measure.
        settings, encode_s, decode_s: may be empty.
    """

    name: str
    bpp: list[float] = field(default_factory=list)
    quality: list[float] = field(default_factory=list)
    settings: list[float] = field(default_factory=list)
    encode_s: list[float] = field(default_factory=list)
    decode_s: list[float] = field(default_factory=list)

    def sorted(self) -> Curve:
        """The same by rate."""
        order = sorted(range(len(self.bpp)), key=self.bpp.__getitem__)
        lists = {
            k: [v[i] for i in order] for k, v in vars(self).items() if k != "name" and len(v) == len(order)
        }
        return Curve(self.name, **lists)

    def mirrored(self) -> Curve:
        """The same with the sign of the measure turned, for measures of which less is better."""
        return replace(self, quality=[-value for value in self.quality])

    def rising(self) -> Curve:
        """Without points that another one beats: more bits for no better image."""
        kept: list[int] = []
        for i, quality in enumerate(self.quality):
            if not kept or (quality > self.quality[kept[-1]] and self.bpp[i] > self.bpp[kept[-1]]):
                kept.append(i)
        return Curve(self.name, [self.bpp[i] for i in kept], [self.quality[i] for i in kept])


def is_measured(path: Path) -> bool:
    """Whether a file is one of ours, and not a collection of published curves."""
    content = _json(path)
    return isinstance(content, dict) and "curves" not in content


_NAMES = {
    "psnr_rgb": ("psnr-rgb", "psnr", "psnr_rgb_db"),
    "psnr_y": ("psnr-y", "psnr_y_db"),
    "ms_ssim": ("ms-ssim-rgb", "ms-ssim", "ms_ssim_rgb"),
    "ssimulacra2": ("ssimulacra_2",),
}


def read_curves(path: Path, metric: str = "psnr_rgb") -> dict[str, Curve]:
    """Curves of a results file of any of the layouts that are known.

    Raises:
        ResultsError: it is none of them, or damaged.
    """
    content = _json(path)
    if isinstance(content, dict) and content.get("format") == FORMAT:
        return Results.load(path).curves(metric)
    if isinstance(content, dict) and isinstance(content.get("curves"), dict):
        several = content["curves"]
    elif isinstance(content, dict) and isinstance(content.get("results"), dict):
        several = {str(content.get("name", path.stem)): content["results"]}
    else:
        raise ResultsError(f"{printable(path)}: no results in it")
    curves = {}
    for name, lists in several.items():
        if not isinstance(lists, dict):
            raise ResultsError(f"{printable(path)}: {printable(name)}: damaged")
        bpp = lists.get("bpp", [])
        quality = next((lists[key] for key in (metric, *_NAMES.get(metric, ())) if key in lists), None)
        if quality is None:
            continue
        if isinstance(bpp, int | float) and isinstance(quality, int | float):
            bpp, quality = [bpp], [quality]  # a single point
        if not isinstance(bpp, list) or not isinstance(quality, list) or len(bpp) != len(quality):
            raise ResultsError(f"{printable(path)}: {printable(name)}: as many rates as values are expected")
        if not all(map(_is_number, (*bpp, *quality))):
            raise ResultsError(f"{printable(path)}: {printable(name)}: rates and values must be numbers")
        curve = Curve(name, list(map(float, bpp)), list(map(float, quality)))
        for key, other in (("encode_s", "encoding_time"), ("decode_s", "decoding_time")):
            times = lists.get(key, lists.get(other))
            if isinstance(times, list) and len(times) == len(bpp) and all(map(_is_number, times)):
                setattr(curve, key, list(map(float, times)))
        curves[name] = curve.sorted()
    return curves


def compressai_results(name: str, description: str, rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Means in CompressAI's layout: one list per measure.

    Args:
        name: of the codec.
        description: what was done.
        rows: one per setting, with the keys of a point; times are single numbers.
    """
    names = {
        **dict.fromkeys(METRICS), "psnr_rgb": "psnr-rgb", "psnr_y": "psnr-y", "ms_ssim": "ms-ssim-rgb",
        "bpp": "bpp", "encode_s": "encoding_time", "decode_s": "decoding_time",
    }  # fmt: skip
    results = {
        new or key: [row[key] for row in rows]
        for key, new in names.items()
        if all(key in row for row in rows)
    }
    return {"name": name, "description": description, "results": results}


def table(
    curves: Mapping[str, Curve], anchor: str, limits: tuple[float, float] | None = None
) -> dict[str, dict[str, Any]]:
    """BD-rate in percent and BD-PSNR in dB of all curves against one of them.

    Args:
        curves: by name.
        anchor: name of the one.
        limits: compare between these values of the measure only.

    Returns:
        By name ``{"bd_rate", "bd_quality", "range"}``, or ``{"error"}`` where curves cannot be compared.

    Raises:
        ResultsError: no such anchor.
    """
    if anchor not in curves:
        raise ResultsError(f"no curve {printable(anchor)}; there are {', '.join(map(printable, curves))}")
    base = curves[anchor].rising()
    found: dict[str, dict[str, Any]] = {}
    for name, curve in curves.items():
        test = curve.rising()
        try:
            low, high = max(base.quality[0], test.quality[0]), min(base.quality[-1], test.quality[-1])
            if limits is not None:
                low, high = max(low, limits[0]), min(high, limits[1])
            if min(len(base.bpp), len(test.bpp)) < _LEAST_POINTS:
                raise CurveError(f"fewer than {_LEAST_POINTS} points that rise")
            lists = base.bpp, base.quality, test.bpp, test.quality
            found[name] = {
                "bd_rate": bd_rate(*lists, psnr_range=limits),
                "bd_quality": bd_psnr(*lists),
                "range": [low, high],
            }
        except (CurveError, IndexError) as error:
            found[name] = {"error": str(error) or "no points"}
    return found


def _json(path: Path) -> Any:
    shown = printable(path)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ResultsError(f"{shown}: larger than {_MAX_BYTES:,} bytes")
        return json.loads(path.read_bytes())
    except OSError as error:
        raise ResultsError(f"{shown}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise ResultsError(f"{shown}: damaged JSON ({printable(str(error))})") from error


def _place(failure: Mapping[str, Any]) -> tuple[str, str, float]:
    return failure["codec"], failure["image"], failure["setting"]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return math.fsum(listed) / len(listed)
