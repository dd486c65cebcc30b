"""Code a photograph with Latens, JPEG, WebP and AVIF at about the same number of bytes, and compare.

    python examples/demo.py

Prints a table; writes the four files and ``side-by-side.png`` to ``demo/``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.table import Table

from latens.evaluate import Codec, find_closest, make_codec, measure, read_rgb
from latens.evaluate.bench import code
from latens.evaluate.codecs import Pixels
from latens.evaluate.results import machine

PHOTO = Path(__file__).with_name("blossom.png")
OUTPUT = Path("demo")
BITS_PER_PIXEL = 0.25
CROP = (325, 35, 450, 160)  # shown enlarged: fine twigs, petals and a blurred background


CODECS = {"Latens": "latens", "JPEG": "jpeg", "WebP": "webp", "AVIF": "avif"}


@dataclass
class Result:
    name: str
    codec: Codec
    data: bytes
    decoded: Pixels
    psnr: float
    ms_ssim: float
    encode_ms: float
    decode_ms: float

    def bits_per_pixel(self) -> float:
        return 8 * len(self.data) / (self.decoded.shape[0] * self.decoded.shape[1])


def run(name: str, photo: Pixels, size: float) -> Result:
    codec = make_codec(CODECS[name], os.cpu_count() or 1)
    setting = find_closest(codec, photo, "bytes", size).setting
    data, decoded, encode_s, decode_s = code(codec, photo, setting, 6)
    quality = measure(photo, decoded, ("psnr_rgb", "ms_ssim"))
    return Result(
        name,
        codec,
        data,
        decoded,
        quality["psnr_rgb"] or 0.0,
        quality["ms_ssim"] or 0.0,
        1000 * median(encode_s[1:]),
        1000 * median(decode_s[1:]),
    )


def table(results: list[Result]) -> Table:
    height, width = results[0].decoded.shape[:2]
    result = Table(title=f"{PHOTO.name}, {width}x{height}", title_justify="left")
    result.add_column("codec")
    for heading in ("bytes", "bpp", "PSNR dB", "MS-SSIM", "encode ms", "decode ms"):
        result.add_column(heading, justify="right")
    for r in results:
        result.add_row(
            r.name,
            f"{len(r.data):,}",
            f"{r.bits_per_pixel():.3f}",
            f"{r.psnr:.2f}",
            f"{r.ms_ssim:.4f}",
            f"{r.encode_ms:.0f}",
            f"{r.decode_ms:.0f}",
            style="bold" if r is results[0] else None,
        )
    return result


def side_by_side(results: list[Result], photo: Image.Image) -> Image.Image:
    """One column for the original and for each codec: label, the whole picture, an enlarged part."""
    side, gap, label = 500, 12, 64
    columns = [("Original", f"{PHOTO.stat().st_size:,} bytes as PNG", photo)]
    columns += [
        (r.name, f"{len(r.data):,} bytes, {r.psnr:.2f} dB", Image.fromarray(r.decoded)) for r in results
    ]
    height = round(side * photo.height / photo.width)
    canvas = Image.new("RGB", (len(columns) * (side + gap) + gap, label + height + side + 3 * gap), "white")
    draw = ImageDraw.Draw(canvas)
    for number, (title, caption, picture) in enumerate(columns):
        x, y = gap + number * (side + gap), gap + label
        draw.text((x, gap), title, "black", ImageFont.load_default(30))
        draw.text((x, gap + 35), caption, "dimgray", ImageFont.load_default(22))
        canvas.paste(picture.resize((side, height), Image.Resampling.LANCZOS), (x, y))
        scale = side / photo.width
        draw.rectangle(
            [x + CROP[0] * scale, y + CROP[1] * scale, x + CROP[2] * scale, y + CROP[3] * scale],
            outline="white",
            width=2,
        )
        # Nearest neighbour: pixels as they are, not smoothed by the enlargement.
        part = picture.crop(CROP).resize((side, side), Image.Resampling.NEAREST)
        canvas.paste(part, (x, y + height + gap))
    return canvas


def main() -> None:
    console = Console(highlight=False)
    photo = read_rgb(PHOTO)
    first, *others = CODECS
    results = [run(first, photo, BITS_PER_PIXEL * photo.shape[0] * photo.shape[1] / 8)]
    results += [run(name, photo, len(results[0].data)) for name in others]
    console.print(table(results))
    here = machine()
    about = f"{here['processor']}, {here['cores']} cores, {here['system']}"
    console.print(f"Times are medians of 5 runs after a first that does not count. {about}", style="dim")

    OUTPUT.mkdir(exist_ok=True)
    for r in results:
        (OUTPUT / (PHOTO.stem + r.codec.suffix)).write_bytes(r.data)
    Image.fromarray(results[0].decoded).save(OUTPUT / f"{PHOTO.stem}-decoded.png")
    side_by_side(results, Image.fromarray(photo)).save(OUTPUT / "side-by-side.png", optimize=True)
    console.print(f"Written to {OUTPUT.name}/: side-by-side.png and the files.")


if __name__ == "__main__":
    main()
