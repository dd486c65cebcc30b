"""One self-contained page out of results: curves, BD-rates, speed, every figure, and pictures to look at.

The page loads nothing from anywhere; its content security policy allows its own script and style and pictures
inside of it, nothing else. Names and messages reach it as JSON and are shown as text only.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from statistics import median
from typing import Any

from PIL import Image as PilImage

import latens
from latens.errors import LatensError, ResultsError
from latens.evaluate.bench import file_name
from latens.evaluate.codecs import Codec, Pixels, make_codec
from latens.evaluate.quality import MEASURES, read_rgb
from latens.evaluate.results import Results, read_curves, table
from latens.io import atomic_write, check_output, printable

__all__ = ["report"]

# MS-SSIM is shown in dB, too: near 1 its differences cannot be seen.
SHOWN = {
    key: {"label": about.label, "unit": about.unit, "digits": about.digits, "rising": about.rising}
    for key, about in MEASURES.items()
}
SHOWN["ms_ssim_db"] = {"label": "MS-SSIM in dB", "unit": "dB", "digits": 2, "rising": True}
RATES = (0.25, 0.75)
_SIDES = (1024, 768, 640, 512, 448, 384, 320, 256, 192, 128)
_QUALITY = 90
_SMALLER = 0.55
"""About what the picture of a reconstruction takes beside that of its original."""

_WORDS = 2000
"""Bytes kept free for what is said about the pictures."""


def report(
    paths: Sequence[Path],
    output: Path,
    *,
    images: Path | None = None,
    anchors: Path | None = None,
    limits: tuple[float, float] | None = None,
    rates: Sequence[float] = (),
    megabytes: float = 12.0,
    shown: int = 12,
    options: Mapping[str, Mapping[str, str]] | None = None,
    title: str = "",
    force: bool = False,
) -> dict[str, Any]:
    """Write the page.

    Args:
        paths: results files; several are merged.
        output: the page.
        images: folder of the originals; where they were when they were measured, by default.
        anchors: further curves to show, of any layout that :func:`latens.evaluate.read_curves` reads.
        limits: range of PSNR (dB) for BD-rates; as far as both curves reach, by default.
        rates: bits per pixel at which pictures are shown; those that ``latens bench --match`` was asked for, else
            0.25 and 0.75.
        megabytes: size that the page must stay below. Pictures are cropped until they fit.
        shown: of how many images there are pictures.
        options: for codecs, by specification, that are needed to decode (paths of programs).
        title: of the page.
        force: replace an existing page.

    Returns:
        What the page shows, as it is written into it, but without the pictures.

    Raises:
        ResultsError: results that cannot be read or don't belong together.
        OutputError: the page cannot be written.
    """
    check_output(output, force=force, inputs=paths)
    results = Results.load(paths[0])
    places = [paths[0].parent / results.files if results.files else None]
    for path in paths[1:]:
        other = Results.load(path)
        places.append(path.parent / other.files if other.files else None)
        results.merge(other)
    if not results.points:
        raise ResultsError(f"{printable(paths[0])}: no points in it")
    data = _figures(results, anchors, limits)
    data["title"] = title or f"{len(results.codecs)} codecs on {len(results.images)} images"
    page = _page(data | {"pictures": []})
    room = int((megabytes * 1e6 - len(page) - _WORDS) * 0.74)  # what base64 makes of it
    wanted = (
        tuple(rates) or tuple(sorted({p["matched"] for p in results.points if p.get("matched")})) or RATES
    )
    folder = images or Path(os.fsdecode(results.folder))
    pictures, notes = _Pictures(results, places, folder, options or {}).make(wanted, room, shown)
    data["picture_notes"] = notes
    atomic_write(output, _page(data | {"pictures": pictures}), force=force, inputs=paths)
    return data


# ---- figures


def _db(ms_ssim: float) -> float | None:
    return -10.0 * math.log10(1.0 - ms_ssim) if ms_ssim < 1.0 else None


def _figures(results: Results, anchors: Path | None, limits: tuple[float, float] | None) -> dict[str, Any]:
    for point in results.points:
        value = point.get("ms_ssim")
        point["ms_ssim_db"] = None if value is None else _db(value)
    metrics = [m for m in SHOWN if any(point.get(m) is not None for point in results.points)]
    curves: dict[str, Any] = {}
    bd: dict[str, Any] = {}
    for metric in metrics:
        measured = results.curves(metric)
        published = read_curves(anchors, metric) if anchors and not metric.endswith("_db") else {}
        if anchors and metric == "ms_ssim_db":
            published = read_curves(anchors, "ms_ssim")
            for curve in published.values():
                curve.quality = [_db(value) or 0.0 for value in curve.quality]
        everything = {**published, **measured}
        curves[metric] = {
            name: {k: v for k, v in vars(curve).items() if k != "name"} | {"published": name not in measured}
            for name, curve in everything.items()
        }
        within = limits if metric == "psnr_rgb" else None
        if SHOWN[metric]["rising"]:
            bd[metric] = {name: _rounded(table(everything, name, within)) for name in everything}
        else:
            turned = {name: curve.mirrored() for name, curve in everything.items()}
            bd[metric] = {name: _turned(_rounded(table(turned, name))) for name in everything}
    images = list(results.images)
    keys = ("codec", "image", "setting", "bytes", "bpp", *metrics, "encode", "decode", "run", "matched")
    rows = []
    for p in results.points:
        times = [_spread(p.get(key, [])) for key in ("encode_s", "decode_s")]
        values = [p.get(metric) for metric in metrics]
        head = [p["codec"], images.index(p["image"]), p["setting"], p["bytes"], p["bpp"]]
        rows.append([*head, *values, *times, p["run"], p.get("matched")])
    return {
        "metrics": metrics,
        "about": {metric: SHOWN[metric] for metric in metrics},
        "absent": results.absent,
        "codecs": results.codecs,
        "images": [{"name": name, **about} for name, about in results.images.items()],
        "keys": keys,
        "points": rows,
        "curves": curves,
        "bd": bd,
        "limits": limits,
        "runs": results.runs,
        "machines": results.machines(),
        "failures": results.failures,
        "skipped": results.skipped,
        "unreadable": results.unreadable,
        "made": f"Latens {latens.__version__}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    }


def _spread(times: Sequence[float]) -> list[float] | None:
    """Median, least and greatest."""
    return [median(times), min(times), max(times)] if times else None


def _rounded(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        name: {k: v if isinstance(v, str | list) else round(v, 6) for k, v in row.items()}
        for name, row in rows.items()
    }


def _turned(rows: dict[str, Any]) -> dict[str, Any]:
    """Figures of mirrored curves as those of the measure itself."""
    for row in rows.values():
        if "range" in row:
            row["range"] = [-value for value in reversed(row["range"])]
            row["bd_quality"] = -row["bd_quality"]
    return rows


# ---- pictures


class _Pictures:
    """Originals and reconstructions at about the same number of bytes, small enough for a page."""

    def __init__(
        self,
        results: Results,
        places: Sequence[Path | None],
        folder: Path,
        options: Mapping[str, Mapping[str, str]],
    ) -> None:
        self._results, self._places, self._folder, self._options = results, places, folder, options
        self._codecs: dict[str, Codec] = {}
        self._notes: dict[str, None] = {}

    def make(self, rates: Sequence[float], room: int, most: int) -> tuple[list[dict[str, Any]], list[str]]:
        """Pictures of ``most`` images, in at most ``room`` bytes, and remarks on what is missing."""
        names = [name for name in self._results.images if any(self._points(name))]
        if not any(place and place.is_dir() for place in self._places):
            return [], ["The coded files were not kept, so there are no pictures."]
        if len(names) > most:
            self._notes[f"Pictures of {most} of the {len(names)} images."] = None
            names = [names[i * len(names) // most] for i in range(most)]
        found = []
        for place, name in enumerate(names):
            # What one image leaves over is for those after it.
            picture = self._of(name, rates, room // (len(names) - place))
            if picture is not None:
                found.append(picture)
                room -= _size(picture)
        return found, list(self._notes)

    def _points(self, name: str) -> list[dict[str, Any]]:
        return [p for p in self._results.points if p["image"] == name]

    def _of(self, name: str, rates: Sequence[float], share: int) -> dict[str, Any] | None:
        about = self._results.images[name]
        try:
            original = read_rgb(self._folder / name)
        except LatensError as error:
            self._notes[str(error)] = None
            return None
        if hashlib.sha256(original.tobytes()).hexdigest() != about.get("sha256"):
            self._notes[f"{printable(name)} is not the image that was measured."] = None
            return None
        rows: list[tuple[float, dict[str, Any], Pixels]] = []
        for rate in rates:
            for codec in self._results.codecs:
                point = self._nearest(name, codec, rate)
                pixels = None if point is None else self._decode(point, original.shape[:2])
                if point is not None and pixels is not None:
                    rows.append((rate, point, pixels))
        if not rows:
            return None
        for box in _boxes(original, share / (1 + _SMALLER * len(rows))):
            picture = self._picture(name, original, rows, box)
            if _size(picture) <= share:
                break
        return picture

    def _picture(
        self,
        name: str,
        original: Pixels,
        rows: Sequence[tuple[float, dict[str, Any], Pixels]],
        box: Sequence[int],
    ) -> dict[str, Any]:
        keys = ("codec", "setting", "bytes", "bpp", *MEASURES)
        sets: dict[float, list[dict[str, Any]]] = {}
        for rate, point, pixels in rows:
            about = {key: point[key] for key in keys if key in point}
            sets.setdefault(rate, []).append(about | {"src": _uri(_encode(_cut(pixels, box)))})
        return {
            "image": name,
            "box": box,
            "size": original.shape[1::-1],
            "original": _uri(_encode(_cut(original, box))),
            "sets": [{"rate": rate, "shown": shown} for rate, shown in sets.items()],
        }

    def _nearest(self, name: str, codec: str, rate: float) -> dict[str, Any] | None:
        points = [p for p in self._points(name) if p["codec"] == codec and p["bytes"] > 0]
        return min(points, key=lambda p: abs(math.log(p["bpp"] / rate)), default=None)

    def _decode(self, point: dict[str, Any], size: tuple[int, ...]) -> Pixels | None:
        spec = point["codec"]
        suffix = str(self._results.codecs[spec].get("suffix", ""))
        relative = file_name(spec, point["image"], point["setting"], suffix)
        path = next((p / relative for p in self._places if p and (p / relative).is_file()), None)
        if path is None:
            self._notes[f"{printable(spec)}: its coded files were not kept."] = None
            return None
        try:
            if spec not in self._codecs:
                self._codecs[spec] = make_codec(spec, 1, **self._options.get(spec, {}))
            pixels = self._codecs[spec].decode(path.read_bytes(), (size[0], size[1]), point["setting"])
        except Exception as error:  # a codec's failure must not cost the page
            self._notes[f"{printable(spec)}: {printable(str(error))[:200]}"] = None
            return None
        return pixels if pixels.shape[:2] == size else None


def _cut(pixels: Pixels, box: Sequence[int]) -> Pixels:
    x, y, width, height = box
    return pixels[y : y + height, x : x + width]


def _boxes(pixels: Pixels, share: float) -> Iterator[list[int]]:
    """Middle parts of an image, from the first whose picture takes no more than a share to the smallest."""
    height, width = pixels.shape[:2]
    fits = False
    for side in _SIDES:
        w, h = min(side, width), min(side, height)
        box = [(width - w) // 2, (height - h) // 2, w, h]
        fits = fits or side == _SIDES[-1] or len(_encode(_cut(pixels, box))) <= share
        if fits:
            yield box


def _size(picture: Mapping[str, Any]) -> int:
    """Bytes of all that a picture of the page holds, before base64."""
    uris = [picture["original"], *(s["src"] for one in picture["sets"] for s in one["shown"])]
    return sum(map(len, uris)) * 3 // 4


def _encode(pixels: Pixels) -> bytes:
    file = io.BytesIO()
    PilImage.fromarray(pixels).save(file, "WEBP", quality=_QUALITY, method=3)
    return file.getvalue()


def _uri(data: bytes) -> str:
    return "data:image/webp;base64," + base64.b64encode(data).decode()


# ---- the page


def _page(data: Mapping[str, Any]) -> bytes:
    folder = resources.files("latens.evaluate").joinpath("page")
    parts = {name: folder.joinpath(f"report.{name}").read_text("utf-8") for name in ("html", "css", "js")}
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")

    def digest(content: str) -> str:
        return "'sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() + "'"

    policy = (
        f"default-src 'none'; img-src data:; style-src {digest(parts['css'])}; script-src {digest(parts['js'])}; "
        "base-uri 'none'; form-action 'none'"
    )
    page = parts["html"]
    for mark, content in (
        ("POLICY", policy),
        ("STYLE", parts["css"]),
        ("SCRIPT", parts["js"]),
        ("DATA", text),
    ):
        page = page.replace(f"{{{{{mark}}}}}", content, 1)
    return page.encode()
