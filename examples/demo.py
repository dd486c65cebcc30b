"""Code a photograph with Latens, JPEG, WebP and AVIF at about the same number of bytes, and compare.

    python examples/demo.py

Prints a table; writes the four files and ``side-by-side.png`` to ``demo/``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from common import CLASSICAL, Codec, closest, latens_codec, machine, median_ms, psnr, read_rgb, similarity

PHOTO = Path(__file__).with_name("blossom.png")
OUTPUT = Path("demo")
BITS_PER_PIXEL = 0.25
CROP = (325, 35, 450, 160)  # shown enlarged: fine twigs, petals and a blurred background


@dataclass
class Result:
    codec: Codec
    data: bytes
    decoded: Image.Image
    psnr: float
    ms_ssim: float
    encode_ms: float
    decode_ms: float

    def bits_per_pixel(self) -> float:
        return 8 * len(self.data) / (self.decoded.width * self.decoded.height)


def run(codec: Codec, photo: Image.Image, size: float) -> Result:
    quality, data = closest(codec, photo, size)
    decoded = codec.decode(data)
    return Result(
        codec,
        data,
        decoded,
        psnr(photo, decoded),
        similarity(photo, decoded),
        median_ms(lambda: codec.encode(photo, quality)),
        median_ms(lambda: codec.decode(data)),
    )


def table(results: list[Result], photo: Image.Image) -> Table:
    result = Table(title=f"{PHOTO.name}, {photo.width}x{photo.height}", title_justify="left")
    result.add_column("codec")
    for heading in ("bytes", "bpp", "PSNR dB", "MS-SSIM", "encode ms", "decode ms"):
        result.add_column(heading, justify="right")
    for r in results:
        result.add_row(
            r.codec.name,
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
    columns += [(r.codec.name, f"{len(r.data):,} bytes, {r.psnr:.2f} dB", r.decoded) for r in results]
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
    size = BITS_PER_PIXEL * photo.width * photo.height / 8
    results = [run(latens_codec(), photo, size)]
    results += [run(codec, photo, len(results[0].data)) for codec in CLASSICAL]
    console.print(table(results, photo))
    console.print(f"Medians of 5 runs after warming up. {machine()}", style="dim")

    OUTPUT.mkdir(exist_ok=True)
    for r in results:
        (OUTPUT / (PHOTO.stem + r.codec.suffix)).write_bytes(r.data)
    results[0].decoded.save(OUTPUT / f"{PHOTO.stem}-decoded.png")
    side_by_side(results, photo).save(OUTPUT / "side-by-side.png", optimize=True)
    console.print(f"Written to {OUTPUT.name}/: side-by-side.png and the files.")


if __name__ == "__main__":
    main()
