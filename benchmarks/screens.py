"""Lossy files of screenshots, drawings and mixed pages at quality 70 against AVIF of equal SSIMULACRA2.

python benchmarks/screens.py --photos FOLDER [--only WORD ...] [--keep FOLDER]

The drawings are those of lossless.py; pages are HTML, which Chromium renders (left out where there is none).
Photographs of the mixed pages come from a folder of PNG files. Nothing is visibly lost above a score of 90, so that
AVIF has to reach ours or 90, whichever is less; its bytes at 70 are told as well.
"""

from __future__ import annotations

import argparse
import base64
import io
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import geometric_mean

import numpy as np
from PIL import Image

from lossless import WORDS, drawn, sentence

MOST = 90.0  # SSIMULACRA2: nobody sees a difference above
TUNES = ("iq", "ssimulacra2")
QUALITIES = (35, 50, 62, 74, 84, 92, 98)


def words(rng: random.Random, count: int) -> str:
    return " ".join(sentence(rng, rng.randrange(5, 15)) for _ in range(count))


def article(rng: random.Random, photo: str | None) -> str:
    figure = f'<img src="{photo}" style="width:640px;display:block;margin:1em 0">' if photo else ""
    paragraphs = "".join(f"<p>{words(rng, 6)}</p>" for _ in range(4))
    return (
        f'<body style="font:18px/1.5 Georgia,serif;width:760px;margin:40px auto"><h1>{sentence(rng, 6)}</h1>'
        f"<p style='color:#888'>{sentence(rng, 4)}</p>{figure}{paragraphs}"
    )


def shop(rng: random.Random, photo: str | None) -> str:
    cards = "".join(
        '<div style="border:1px solid #ddd;border-radius:10px;padding:12px;box-shadow:0 2px 8px #0002">'
        + (
            f'<img src="{photo}" style="width:100%;height:150px;object-fit:cover;object-position:{13 * i}% 50%">'
            if photo
            else f'<div style="height:90px;background:hsl({40 * i} 60% 70%);border-radius:6px"></div>'
        )
        + f'<b>{sentence(rng, 2)}</b><br><span style="color:#c00">{rng.randrange(5, 200)}.99</span><br>'
        f"<small>{sentence(rng, 8)}</small></div>"
        for i in range(9)
    )
    return (
        '<body style="font:15px sans-serif;margin:0"><header style="background:linear-gradient(90deg,#234,#57a);'
        f'color:#fff;padding:18px;font-size:22px">{sentence(rng, 2)}</header><div style="display:grid;'
        f'grid-template-columns:repeat(3,1fr);gap:16px;padding:20px">{cards}</div>'
    )


def mail(rng: random.Random, photo: str | None) -> str:
    rows = "".join(
        f'<div style="padding:9px;border-bottom:1px solid #333"><b>{rng.choice(WORDS).title()}</b> '
        f'<span style="color:#9ab">{sentence(rng, 9)}</span></div>'
        for _ in range(16)
    )
    figure = f'<img src="{photo}" style="width:460px;border-radius:12px">' if photo else ""
    return (
        '<body style="background:#16181d;color:#dde;font:14px sans-serif;margin:0;display:flex">'
        f'<div style="width:480px;background:#1e2127">{rows}</div><div style="padding:24px;width:560px"><h2>'
        f"{sentence(rng, 5)}</h2>{figure}<p>{words(rng, 5)}</p></div>"
    )


def board(rng: random.Random, photo: str | None) -> str:
    bars = "".join(
        f'<rect x="{30 * i + 10}" y="{180 - h}" width="20" height="{h}" fill="hsl({200 + 4 * i} 70% 50%)"/>'
        for i, h in enumerate(rng.choices(range(20, 170), k=18))
    )
    line = " ".join(f"{20 * i},{90 + rng.randrange(-60, 60)}" for i in range(28))
    figure = f'<img src="{photo}" style="width:340px;float:right;margin:8px">' if photo else ""
    table = "".join(
        "<tr>" + "".join(f"<td>{rng.uniform(0, 999):.1f}</td>" for _ in range(9)) + "</tr>" for _ in range(10)
    )
    return (
        '<body style="font:13px sans-serif;background:#f4f5f9;margin:20px"><h2>'
        f'{sentence(rng, 3)}</h2>{figure}<svg width="580" height="190">{bars}</svg><svg width="580" height="190">'
        f'<polyline points="{line}" fill="none" stroke="#d33" stroke-width="2"/></svg>'
        f'<table border="1" cellpadding="5" style="border-collapse:collapse">{table}</table>'
    )


def forum(rng: random.Random, photo: str | None) -> str:
    posts = "".join(
        '<div style="display:flex;gap:12px;margin:10px;background:#fff;padding:12px;border-radius:6px">'
        + (
            f'<img src="{photo}" style="width:64px;height:64px;border-radius:32px;object-fit:cover;'
            f'object-position:{17 * i}% {11 * i}%">'
            if photo
            else f'<div style="width:64px;height:64px;border-radius:32px;background:hsl({70 * i} 50% 60%)"></div>'
        )
        + f'<div style="width:700px"><b>{rng.choice(WORDS)}</b><p>{words(rng, 2)}</p></div></div>'
        for i in range(6)
    )
    big = f'<img src="{photo}" style="width:600px;margin:10px">' if photo else ""
    return f'<body style="font:15px sans-serif;background:#dae0e6;margin:0">{big}{posts}'


def poster(rng: random.Random, photo: str | None) -> str:
    back = f"url({photo}) center/cover" if photo else "linear-gradient(135deg,#512da8,#ff7043)"
    return (
        f'<body style="margin:0;font:20px sans-serif"><div style="background:{back};width:1024px;height:420px">'
        '<div style="color:#fff;font-size:60px;padding:150px 60px;text-shadow:0 2px 6px #000">'
        f'{sentence(rng, 3)}</div></div><div style="columns:2;padding:30px">{words(rng, 14)}</div>'
    )


PAGES = (article, shop, mail, board, forum, poster)


def render(page: str) -> Image.Image:
    """A page as Chromium shows it, 1024 x 900."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "page.html"), Path(folder, "page.png")
        source.write_text(page, "utf-8")
        command = ["chromium", "--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=1024,900"]
        subprocess.run(
            [*command, f"--screenshot={target}", source.as_uri()],
            check=True,
            capture_output=True,
            timeout=120,
        )
        return Image.open(io.BytesIO(target.read_bytes())).convert("RGB")


def pages(photos: list[Path]) -> Iterator[tuple[str, str, Image.Image]]:
    """Kind, name and picture."""
    for name, image in drawn():
        yield ("mixed" if name in ("chat", "magazine") else "drawn"), name, image
    if shutil.which("chromium") is None:
        print("without pages: there is no chromium")
        return
    for number, make in enumerate(PAGES):
        yield "drawn", f"html {make.__name__}", render(make(random.Random(number), None))
        if photos:
            data = base64.b64encode(photos[number % len(photos)].read_bytes()).decode()
            photo = f"data:image/png;base64,{data}"
            yield "mixed", f"photo {make.__name__}", render(make(random.Random(number), photo))


def avif(image: Image.Image, quality: int, tune: str) -> bytes:
    buffer = io.BytesIO()
    image.save(
        buffer, "AVIF", quality=quality, speed=4, subsampling="4:4:4", advanced={"tune": tune}, max_threads=2
    )
    return buffer.getvalue()


class Avif:
    """AVIF files of a picture: bytes by score, between qualities that are made."""

    def __init__(self, image: Image.Image) -> None:
        from latens.metrics import ssimulacra2

        pixels = np.asarray(image)
        self._curves = []
        for tune in TUNES:
            curve = []
            for quality in QUALITIES:
                data = avif(image, quality, tune)
                decoded = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
                curve.append((ssimulacra2(pixels, decoded), len(data)))
                if curve[-1][0] >= MOST:
                    break
            self._curves.append(sorted(curve))

    def reach(self, score: float) -> float:
        """Bytes at a score with the better tune; of the best or the smallest file that was made, outside of these."""
        return min(
            float(np.exp(np.interp(score, [p[0] for p in curve], [np.log(p[1]) for p in curve])))
            for curve in self._curves
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, help="a folder of PNG files")
    parser.add_argument("--only", nargs="*", help="pictures with one of these words in their names")
    parser.add_argument("--quality", type=float, default=70)
    parser.add_argument("--keep", type=Path, help="write pictures and what became of them into this folder")
    args = parser.parse_args()
    from latens import format as ltn
    from latens.codec import ImageCodec
    from latens.io import Image as Pixels
    from latens.metrics import ssimulacra2

    codec = ImageCodec()
    photos = sorted(args.photos.glob("*.png")) if args.photos else []
    ratios: dict[str, list[tuple[float, float]]] = {"drawn": [], "mixed": []}
    for kind, name, image in pages(photos):
        if args.only and not any(word in name for word in args.only):
            continue
        image = image.convert("RGB")
        pixels = np.asarray(image)
        start = time.perf_counter()
        data = codec.encode(Pixels(pixels), args.quality, content="auto")
        seconds = time.perf_counter() - start
        container = ltn.read(data)
        decoded = codec.decode(container)[0].pixels
        ours = ssimulacra2(pixels, decoded)
        peer = Avif(image)
        equal, at_70 = peer.reach(min(ours, MOST)), peer.reach(70)
        way = "lossless" if container.header.lossless else "photo"
        if any(tile is not None and tile.drawn for tile in container.tiles):
            way = "both"
        ratios[kind].append((len(data) / equal, len(data) / at_70))
        print(
            f"{kind} {name:<14} {way:<8} {len(data):>8,} bytes, score {ours:6.2f}; AVIF {equal:>8,.0f} at "
            f"{min(ours, MOST):5.2f} ({len(data) / equal:.2f}), {at_70:>8,.0f} at 70 ({len(data) / at_70:.2f})  "
            f"{seconds:.2f} s",
            flush=True,
        )
        if args.keep:
            args.keep.mkdir(parents=True, exist_ok=True)
            stem = f"{kind}-{name.replace(' ', '-')}"
            image.save(args.keep / f"{stem}.png")
            Image.fromarray(decoded).save(args.keep / f"{stem}-decoded.png")
            (args.keep / f"{stem}.ltn").write_bytes(data)
    for kind, pairs in ratios.items():
        if pairs:
            equal_ratio, ratio_70 = (geometric_mean(column) for column in zip(*pairs, strict=True))
            print(
                f"{kind}: {len(pairs)} pictures, {equal_ratio:.3f} of AVIF's bytes, {ratio_70:.3f} at a score of 70"
            )


if __name__ == "__main__":
    main()
