"""``latens inspect``: what a codec does to a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latens.cli import files
from latens.cli.messages import say
from latens.cli.options import Force
from latens.errors import DownloadError
from latens.io import printable

if TYPE_CHECKING:
    from latens.inspect import Anatomy, RatePoint, Subject


def inspect(
    image: Annotated[str, typer.Argument(help="Picture to look into; '-' is standard input.")],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Released model (by default that of encode), weights file, architecture of the zoo, its checkpoint.",
        ),
    ] = None,
    quality: Annotated[
        float | None,
        typer.Option("--quality", "-q", help="On the model's own scale; its middle by default."),
    ] = None,
    metric: Annotated[
        str, typer.Option("--metric", help="What an architecture of the zoo was trained for: mse, ms-ssim.")
    ] = "mse",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder to write; by default beside the picture, PICTURE-inspect."
        ),
    ] = None,
    curve: Annotated[bool, typer.Option("--curve/--no-curve", help="Also code it at all qualities.")] = True,
    force: Force = False,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="CPU threads; all cores by default.")
    ] = None,
    max_pixels: Annotated[
        int, typer.Option("--max-pixels", min=1, help="Refuse images with more pixels than this.")
    ] = 1 << 24,
) -> None:
    """Show where the bits of a picture go.

    Codes the picture, takes the result apart, and writes a folder of pictures (PNG), figures (inspection.json) and a
    page of all of them that needs no network (index.html): bits per channel and per position, predicted means and
    scales, symbols against the model, theoretical and real bytes, all qualities. The most important figures are
    printed. Pictures need matplotlib: pip install 'latens[eval]'.

    Examples:

      latens inspect photo.png

      latens inspect photo.png --model mbt2018-mean --quality 3 -o look/

      latens inspect photo.png --model checkpoint.pth.tar --no-curve
    """
    from latens.inspect import load_subject, require_matplotlib, write_report
    from latens.io import read_image
    from latens.zoo import DEFAULT_MODEL

    require_matplotlib()
    folder = output
    if folder is None:
        folder = Path("stdin-inspect") if image == files.STANDARD else _beside(Path(image))
    if threads is not None:
        import torch

        from latens.runtime import set_threads

        torch.set_num_threads(threads)
        set_threads(threads)
    picture = read_image(files.open_source(image), max_pixels=max_pixels).to_8_bits()
    subject = load_subject(model or DEFAULT_MODEL, metric=metric)
    with files.named(image):
        anatomy = subject.inspect(picture.pixels, quality)
        points = _points(subject, picture.pixels) if curve else []
        page = write_report(anatomy, points, folder, title=files.shown(image), force=force)
    files.to_standard_output((_text(anatomy) + "\n").encode())
    say(f"{files.shown(image)} -> {printable(page)}")


def _beside(image: Path) -> Path:
    return image.with_name(f"{image.stem}-inspect")


def _points(subject: Subject, pixels: Any) -> list[RatePoint]:
    try:
        return subject.rate_curve(pixels)
    except DownloadError as error:
        say(f"pictures of all qualities are left out: {error}")
        return []


def _drawn(anatomy: Anatomy) -> list[str]:
    """What does not come from the model."""
    if anatomy.lossless:
        return [
            f"latens encode makes a lossless file of it, {anatomy.lossless:,} bytes; this is what the model makes"
        ]
    if anatomy.drawn is None or not anatomy.drawn.any():
        return []
    count, of = anatomy.drawn_blocks()
    return [f"{count:,} of {of:,} blocks of 64x64 are drawn, or partly"]


def _text(anatomy: Anatomy) -> str:
    height, width = anatomy.original.shape[:2]
    baselines, bits = anatomy.baselines(), anatomy.y.channel_bits()
    lines = [
        f"{anatomy.model}, quality {anatomy.quality:g}: {width} x {height}, {anatomy.size:,} bytes, "
        f"{anatomy.bpp:.3f} bits per pixel, {anatomy.psnr:.2f} dB",
        *_drawn(anatomy),
        "",
        f"{'part':<16}{'theoretical':>14}{'real bytes':>14}",
    ]
    rows = [(part.name, part.ideal_bits / 8, part.bytes) for part in anatomy.parts]
    rows.append(("together", sum(row[1] for row in rows), anatomy.size))
    lines += [f"{name:<16}{ideal:>14,.0f}{real:>14,}" for name, ideal, real in rows]
    lines += [
        "",
        f"the same symbols as int16: {baselines.int16:,} bytes; through zlib 9: {baselines.zlib:,}",
        "",
        "dearest channels of y",
    ]
    total = max(float(bits.sum()), 1e-12)
    lines += [
        f"{channel:>8}{bits[channel] / 8:>14,.0f} bytes{100 * bits[channel] / total:>8.1f} %"
        for channel in anatomy.y.strongest(5)
    ]
    return "\n".join(lines)
