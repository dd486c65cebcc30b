"""Pictures, figures and a page of an inspection, in a folder."""

from __future__ import annotations

import base64
import html
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

from PIL import Image as PilImage

from latens.errors import OutputError
from latens.inspect.anatomy import Anatomy, RatePoint
from latens.inspect.figures import figures, require_matplotlib
from latens.io import atomic_write, check_output, printable

__all__ = ["write_report"]

PAGE = "index.html"
FIGURES = "inspection.json"
_PAGE_SIDE = 1600

_SECTIONS = (
    (
        "Where the bits go",
        ("heatmap",),
        "Bits that the model pays for each position, those of the side information spread evenly. What is smooth "
        "costs next to nothing; texture and edges that nothing announces cost most.",
    ),
    (
        "What is drawn",
        ("blocks",),
        "Text, lines and flat areas are kept, but for what nobody sees of soft edges, in blocks of 64x64 pixels; "
        "the model sees a smooth continuation of their surroundings there. Where both take about "
        "the same bits, a block is kept.",
    ),
    (
        "Which channels take them",
        ("channels", "strongest"),
        "Channels of the latent, sorted by cost, and the dearest as pictures, each with its share of the bits and "
        "the range of its colours in quantisation steps. A few channels carry averages and smooth gradients; most are "
        "busy only where there is detail.",
    ),
    (
        "What the model expected",
        ("maps", "hyperprior", "correlation"),
        "The side information tells the decoder a scale, and with some models a mean, for every latent. "
        "Subtracting the mean and dividing by the scale should leave noise of variance 1 without structure: the less "
        "neighbours still have in common, the better the prediction (Minnen et al., 2018; Ballé et al., 2018).",
    ),
    (
        "Does the model tell the truth",
        ("histograms",),
        "Symbols as they occur in the picture, and as often as the model expects them. The rate is lowest where "
        "both agree.",
    ),
    (
        "Theory and file",
        ("parts",),
        "Theoretical sizes are sums of -log2 of the model's probabilities. The file has integer tables, coder "
        "states and a header on top. Storing the same symbols plainly shows what the model is worth.",
    ),
    (
        "All qualities",
        ("staircase", "side-information"),
        "Real bytes at every quality, and how much of them describes the model's own parameters (Ballé et al., "
        "2018).",
    ),
)

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; --ink: #1c2733; --soft: #5d6975; --paper: #f6f8fa; --card: #ffffff; --line: #dfe4e9;
  --accent: #2b6cb0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaee; --soft: #9aa6b2; --paper: #12171d; --card: #1b222a;
  --line: #2c3640; --accent: #7fb2e5; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 74rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.7rem; margin: .5rem 0 .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.8rem 0 .4rem; }
p { max-width: 46rem; color: var(--soft); margin: .3rem 0 1rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .8rem; margin: 1.4rem 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .7rem .9rem; }
.tile b { display: block; font-size: 1.35rem; font-weight: 650; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: .85rem; }
figure { margin: 0 0 1rem; background: #fff; border: 1px solid var(--line); border-radius: .6rem; padding: .6rem;
  overflow-x: auto; }
figure img { display: block; width: 100%; min-width: 34rem; height: auto; }
.viewer { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .8rem; }
.viewer input { position: absolute; opacity: 0; }
.viewer label { display: inline-block; padding: .3rem .9rem; margin: 0 .3rem .7rem 0; border: 1px solid var(--line);
  border-radius: 2rem; cursor: pointer; }
.viewer input:checked + label { background: var(--accent); border-color: var(--accent); color: var(--card); }
.viewer input:focus-visible + label { outline: 3px solid var(--accent); outline-offset: 2px; }
.viewer img { display: none; max-width: 100%; height: auto; margin: 0 auto; border-radius: .3rem; }
#see-0:checked ~ .see-0, #see-1:checked ~ .see-1, #see-2:checked ~ .see-2 { display: block; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .4rem 0 1.2rem; }
.wide { overflow-x: auto; }
th, td { padding: .3rem .9rem .3rem 0; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
th { color: var(--soft); font-weight: 500; }
</style>
</head>
<body>
<main>
<h1>$heading</h1>
<p>$subheading</p>
<div class="tiles">$tiles</div>
<div class="viewer">$viewer</div>
$sections
</main>
</body>
</html>
""")


def write_report(
    anatomy: Anatomy,
    curve: Sequence[RatePoint],
    folder: str | os.PathLike[str],
    *,
    title: str = "picture",
    force: bool = False,
) -> Path:
    """Write pictures (PNG), figures (JSON) and a self-contained page into a folder.

    Args:
        anatomy: what to show.
        curve: the same picture at all qualities; may be empty.
        folder: made if it is not there.
        title: what the picture is called.
        force: replace existing files.

    Returns:
        The page.

    Raises:
        UnavailableError: matplotlib is not installed.
        OutputError: something cannot be written; checked before any picture is made.
    """
    require_matplotlib()
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{printable(folder)}: cannot be made ({error.strerror})") from error
    check_output(folder / PAGE, force=force)
    pngs = figures(anatomy, curve)
    for name, data in pngs.items():
        check_output(folder / f"{name}.png", force=force)
        atomic_write(folder / f"{name}.png", data, force=force)
    numbers = anatomy.summary() | {"curve": [_point(point) for point in curve]}
    atomic_write(folder / FIGURES, json.dumps(numbers, indent=1).encode(), force=force)
    page = _page(anatomy, curve, pngs, title)
    atomic_write(folder / PAGE, page.encode("utf-8", "replace"), force=force)
    return folder / PAGE


def _point(point: RatePoint) -> dict[str, object]:
    parts = {part.name: part.bytes for part in point.parts}
    return {"quality": point.quality, "bpp": point.bpp, "psnr": point.psnr, "bytes": parts}


def _page(anatomy: Anatomy, curve: Sequence[RatePoint], pngs: Mapping[str, bytes], title: str) -> str:
    height, width = anatomy.original.shape[:2]
    tiles = [
        (f"{anatomy.size:,}", "bytes"),
        (f"{anatomy.bpp:.3f}", "bits per pixel"),
        (f"{anatomy.psnr:.2f} dB", "PSNR, RGB"),
        (f"{anatomy.size / max(_theory(anatomy), 1e-12):.3f}", "times the theoretical size"),
        (f"{anatomy.baselines().zlib / anatomy.size:.1f}x", "smaller than zlib on the symbols"),
    ]
    names = ("original", "reconstruction", "difference")
    labels = ("Original", f"{anatomy.size:,} bytes", "Difference, 8x")
    if anatomy.lossless:
        tiles.append((f"{anatomy.lossless:,}", "bytes of the lossless file that is made instead"))
    note = (
        "" if max(height, width) <= _PAGE_SIDE else "<p>Reduced here; the files beside this page are not.</p>"
    )
    viewer = "".join(
        f'<input type="radio" name="see" id="see-{i}"{" checked" if i == 1 else ""}>'
        f'<label for="see-{i}">{label}</label>'
        for i, label in enumerate(labels)
    ) + "".join(_image(_reduced(pngs[name]), f"see-{i}", name) for i, name in enumerate(names))
    sections = []
    for heading, pictures, text in _SECTIONS:
        shown = [name for name in pictures if name in pngs]
        if not shown:
            continue
        body = "".join(f"<figure>{_image(pngs[name], '', name)}</figure>" for name in shown)
        if "parts" in shown:
            body += _table(
                ("part", "theoretical bytes", "real bytes"),
                [(p.name, f"{p.ideal_bits / 8:,.0f}", f"{p.bytes:,}") for p in anatomy.parts]
                + [("together", f"{_theory(anatomy):,.0f}", f"{anatomy.size:,}")],
            )
        if "channels" in shown:
            bits = anatomy.y.channel_bits()
            body += _table(
                ("dearest channels", "bytes", "share"),
                [
                    (str(c), f"{bits[c] / 8:,.0f}", f"{100 * bits[c] / max(bits.sum(), 1e-12):.1f} %")
                    for c in anatomy.y.strongest(5)
                ],
            )
        if "staircase" in shown:
            body += _table(
                ("quality", "bits per pixel", "PSNR dB", "side information"),
                [
                    (
                        f"{p.quality:g}",
                        f"{p.bpp:.3f}",
                        f"{p.psnr:.2f}",
                        f"{100 * p.part_bpp('z') / p.bpp:.1f} %",
                    )
                    for p in curve
                ],
            )
        sections.append(f"<h2>{heading}</h2><p>{html.escape(text)}</p>{body}")
    return _PAGE.substitute(
        title=html.escape(f"{printable(title)} through {anatomy.model}"),
        heading=html.escape(printable(title)),
        subheading=html.escape(
            f"{width} x {height}, coded by {anatomy.model} at quality {anatomy.quality:g}"
        ),
        tiles="".join(
            f'<div class="tile"><b>{value}</b><span>{label}</span></div>' for value, label in tiles
        ),
        viewer=viewer + note,
        sections="\n".join(sections),
    )


def _reduced(png: bytes) -> bytes:
    """A picture no larger than pages should carry; pixel by pixel, it is a file of its own."""
    with PilImage.open(io.BytesIO(png)) as image:
        if max(image.size) <= _PAGE_SIDE:
            return png
        image.thumbnail((_PAGE_SIDE, _PAGE_SIDE), PilImage.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
    return buffer.getvalue()


def _theory(anatomy: Anatomy) -> float:
    return sum(part.ideal_bits for part in anatomy.parts) / 8


def _image(png: bytes, css: str, alt: str) -> str:
    name = f' class="{css}"' if css else ""
    return f'<img{name} alt="{alt}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f'<div class="wide"><table><thead>{line(head, "th")}</thead><tbody>{body}</tbody></table></div>'
