"""Bytes of lossless files: ours, WebP's, JPEG XL's and PNG's, on drawings made here and on folders of pictures.

python benchmarks/lossless.py [FOLDER ...] [--effort N] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import io
import math
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import geometric_mean

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

WORDS = (  # noqa: SIM905
    "the of and a to in is that for it as was with be by on not he his but at are this have from or had an they "
    "which one you were her all she there would their we him been has when who will more no if out so said what up "
    "its about into than them can only other new some could time these two may then do first any my now such like "
    "our over man me even most made after also did many before must through back years where much your way well "
    "down should because each just those people how too little state good very make world still own see men work "
    "long get here between both life being under never day same another know while last might us great old year off"
).split()


def font(size: int, name: str = "DejaVuSans.ttf") -> ImageFont.FreeTypeFont:
    from matplotlib import get_data_path

    return ImageFont.truetype(f"{get_data_path()}/fonts/ttf/{name}", size)


def sentence(rng: random.Random, words: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(words)).capitalize() + "."


def paragraph(
    draw: ImageDraw.ImageDraw, rng: random.Random, box: tuple[int, int, int, int], face, fill
) -> None:
    """Words set line by line into (left, top, right, bottom)."""
    left, top, right, bottom = box
    x, y, height = left, top, int(face.size * 1.45)
    while y + height <= bottom:
        word = rng.choice(WORDS) + (", " if rng.random() < 0.1 else " ")
        width = draw.textlength(word, face)
        if x + width > right or rng.random() < 0.01:
            x, y = left, y + height
            continue
        draw.text((x, y), word, fill, face)
        x += width


def page(rng: random.Random) -> Image.Image:
    """A page of a report, black on white."""
    image = Image.new("L", (1240, 1754), 255)
    draw = ImageDraw.Draw(image)
    draw.text((120, 110), sentence(rng, 4), 0, font(44, "DejaVuSerif-Bold.ttf"))
    face = font(22, "DejaVuSerif.ttf")
    for top, bottom in ((200, 640), (700, 1100), (1160, 1640)):
        draw.text((120, top), sentence(rng, 3), 0, font(28, "DejaVuSans-Bold.ttf"))
        paragraph(draw, rng, (120, top + 50, 1120, bottom), face, 0)
    return image.convert("RGB")


def editor(rng: random.Random) -> Image.Image:
    """Source code on a dark ground, in the colours of an editor."""
    image = Image.new("RGB", (1280, 800), "#1e1e1e")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 220, 800), "#252526")
    draw.rectangle((0, 776, 1280, 800), "#007acc")
    small, face = font(13), font(14, "DejaVuSansMono.ttf")
    for i in range(30):
        draw.text(
            (20 + 14 * rng.randrange(3), 12 + 24 * i),
            rng.choice(WORDS) + rng.choice((".py", ".cpp", ".md")),
            "#cccccc",
            small,
        )
    colours = ("#569cd6", "#dcdcaa", "#9cdcfe", "#ce9178", "#b5cea8", "#6a9955", "#d4d4d4")
    for line in range(40):
        y = 6 + 19 * line
        draw.text((236, y), f"{line + 101:4d}", "#858585", face)
        x = 300 + 32 * rng.randrange(4)
        for _ in range(rng.randrange(9)):
            word = rng.choice(WORDS) + rng.choice(("(", ")", " =", ":", ".", ",", ""))
            draw.text((x, y), word, rng.choice(colours), face)
            x += 8.43 * (len(word) + 1)
    return image


def terminal(rng: random.Random) -> Image.Image:
    """Text without smoothing, 16 colours."""
    image = Image.new("RGB", (1024, 768), "black")
    draw = ImageDraw.Draw(image)
    draw.fontmode = "1"
    face = font(13, "DejaVuSansMono.ttf")
    colours = ("#00aa00", "#aaaaaa", "#aaaaaa", "#aaaaaa", "#5555ff", "#aa0000", "#ffff55")
    for line in range(48):
        x = 4
        draw.text(
            (x, 2 + 16 * line),
            f"drwxr-xr-x {rng.randrange(9)} root {rng.randrange(10**6):7d}",
            "#aaaaaa",
            face,
        )
        draw.text(
            (300, 2 + 16 * line),
            " ".join(rng.choices(WORDS, k=rng.randrange(1, 12))),
            rng.choice(colours),
            face,
        )
    return image


def smooth_text(rng: random.Random) -> Image.Image:
    """A page with the coloured edges of sub-pixel rendering."""
    wide = Image.new("L", (1100 * 3, 800), 255)
    glyphs = Image.new("L", (1100, 800), 255)
    draw = ImageDraw.Draw(wide)
    face = font(16)
    x, y = 40, 30
    while y < 760:
        word = rng.choice(WORDS) + " "
        mask = Image.new("L", (int(draw.textlength(word, face)) * 3 + 9, 24), 255)
        ink = Image.new("L", (mask.width // 3, 24), 255)
        ImageDraw.Draw(ink).text((0, 0), word, 0, face)
        mask = ink.resize((ink.width * 3, 24), Image.Resampling.BICUBIC)
        if x + ink.width > 1060:
            x, y = 40, y + 25
            continue
        wide.paste(mask, (x * 3, y))
        glyphs.paste(ink, (x, y))
        x += ink.width
    values = np.asarray(wide).reshape(800, 1100, 3)
    return Image.fromarray(np.ascontiguousarray(values))


def sheet(rng: random.Random) -> Image.Image:
    """A table of numbers with rules and shaded rows."""
    image = Image.new("RGB", (1280, 900), "white")
    draw = ImageDraw.Draw(image)
    face, bold = font(13), font(13, "DejaVuSans-Bold.ttf")
    for row in range(40):
        y = 22 * row
        draw.rectangle((0, y, 1280, y + 22), "#f3f6fb" if row % 2 else "white")
        for column in range(14):
            text = rng.choice(WORDS) if column == 0 else f"{rng.uniform(-999, 9999):,.2f}"
            colour = "#c00000" if text.startswith("-") else "#222222"
            draw.text((92 * column + 86, y + 4), text, colour, bold if row == 0 else face, anchor="ra")
    for column in range(15):
        draw.line((92 * column, 0, 92 * column, 900), "#d0d7e5")
    for row in range(42):
        draw.line((0, 22 * row, 1280, 22 * row), "#d0d7e5")
    return image


def gradient(
    size: tuple[int, int], first: tuple[int, ...], last: tuple[int, ...], angle: float
) -> Image.Image:
    width, height = size
    y, x = np.mgrid[:height, :width]
    t = x / width * math.cos(angle) + y / height * math.sin(angle)
    t = ((t - t.min()) / np.ptp(t))[..., None]
    return Image.fromarray(np.round(np.asarray(first) * (1 - t) + np.asarray(last) * t).astype(np.uint8))


def site(rng: random.Random) -> Image.Image:
    """A web page: a header with a gradient, cards with soft shadows, round buttons."""
    image = Image.new("RGB", (1366, 1200), "#f7f8fa")
    image.paste(gradient((1366, 260), (52, 73, 190), (150, 60, 180), 0.6))
    draw = ImageDraw.Draw(image)
    draw.text((80, 70), sentence(rng, 4), "white", font(40, "DejaVuSans-Bold.ttf"))
    draw.text((80, 140), sentence(rng, 9), "#e0e0ff", font(20))
    for i in range(9):
        x, y = 80 + 410 * (i % 3), 300 + 290 * (i // 3)
        shadow = Image.new("L", (420, 300), 0)
        ImageDraw.Draw(shadow).rounded_rectangle((20, 20, 390, 270), 12, 60)
        image.paste("#30304a", (x - 10, y - 10), shadow.filter(ImageFilter.GaussianBlur(8)))
        draw.rounded_rectangle((x, y, x + 370, y + 250), 12, "white")
        draw.text((x + 20, y + 18), sentence(rng, 2), "#202030", font(20, "DejaVuSans-Bold.ttf"))
        paragraph(draw, rng, (x + 20, y + 55, x + 350, y + 180), font(14), "#606070")
        colour = rng.choice(("#3449be", "#1a9c5b", "#d9534f"))
        draw.rounded_rectangle((x + 20, y + 195, x + 140, y + 230), 17, colour)
        draw.text((x + 80, y + 212), rng.choice(WORDS), "white", font(14), anchor="mm")
    return image


def photograph(rng: random.Random, width: int, height: int) -> Image.Image:
    """What is neither flat nor regular: noise of many scales with lit shapes, and the grain of a sensor."""
    generator = np.random.default_rng(rng.randrange(1 << 30))
    total = np.zeros((height, width, 3))
    for scale in (128, 64, 32, 16, 8, 4, 2):
        shape = (height // scale + 2, width // scale + 2)
        base = generator.normal(0, 1, shape)
        tint = generator.normal(0, 0.25, (*shape, 3))
        layer = np.clip((base[..., None] + tint) * 40 + 128, 0, 255).astype(np.uint8)
        big = Image.fromarray(layer).resize((width, height), Image.Resampling.BICUBIC)
        total += (np.asarray(big).astype(float) - 128) * (scale / 128) ** 0.7
    total += generator.normal(0, 1.5, total.shape)
    return Image.fromarray(np.clip(total + 120, 0, 255).astype(np.uint8))


def chat(rng: random.Random) -> Image.Image:
    """Messages in bubbles, round pictures of faces, one photograph."""
    image = Image.new("RGB", (750, 1334), "#ece5dd")
    draw = ImageDraw.Draw(image)
    y = 20
    for i in range(11):
        mine = rng.random() < 0.5
        height = rng.choice((70, 100, 130))
        left = 180 if mine else 90
        draw.rounded_rectangle((left, y, left + 480, y + height), 16, "#dcf8c6" if mine else "white")
        paragraph(draw, rng, (left + 18, y + 12, left + 460, y + height - 4), font(18), "#202020")
        if not mine:
            face = photograph(rng, 60, 60)
            mask = Image.new("L", (240, 240), 0)
            ImageDraw.Draw(mask).ellipse((0, 0, 239, 239), 255)
            image.paste(face, (16, y), mask.resize((60, 60), Image.Resampling.LANCZOS))
        y += height + 16
        if i == 5:
            image.paste(photograph(rng, 400, 220), (90, y))
            y += 236
    return image


def figure(make: Callable[[random.Random, object], None], size: tuple[float, float] = (10, 6.5)):
    def drawn(rng: random.Random) -> Image.Image:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        shown = pyplot.figure(figsize=size, dpi=110)
        make(rng, shown)
        buffer = io.BytesIO()
        shown.savefig(buffer, format="png")
        pyplot.close(shown)
        return Image.open(buffer).convert("RGB")

    drawn.__name__ = make.__name__
    return drawn


@figure
def lines(rng: random.Random, shown) -> None:
    axes = shown.add_subplot()
    for i in range(6):
        walk = np.cumsum([rng.gauss(0, 1) for _ in range(400)])
        axes.plot(walk, label=f"series {i}")
    axes.legend()
    axes.grid()
    axes.set_title("Six walks")


@figure
def bars(rng: random.Random, shown) -> None:
    left, right = shown.subplots(1, 2)
    left.bar(range(12), [rng.uniform(1, 10) for _ in range(12)], color="tab:orange")
    right.pie([rng.uniform(1, 5) for _ in range(7)], labels=rng.sample(WORDS, 7), autopct="%.1f %%")


@figure
def scatter(rng: random.Random, shown) -> None:
    axes = shown.add_subplot()
    for colour in ("tab:blue", "tab:red", "tab:green"):
        points = [(rng.gauss(0, 1), rng.gauss(0, 1)) for _ in range(500)]
        axes.scatter(*zip(*points, strict=True), s=18, c=colour, alpha=0.5)


@figure
def surface(rng: random.Random, shown) -> None:
    y, x = np.mgrid[-3:3:200j, -3:3:200j]
    z = np.sin(2 * x + rng.random()) * np.cos(y) + np.exp(-x * x - y * y)
    left, right = shown.subplots(1, 2)
    left.imshow(z, interpolation="bilinear")
    right.contourf(x, y, z, 14, cmap="magma")


@figure
def formulas(rng: random.Random, shown) -> None:
    texts = (
        r"$\int_0^\infty e^{-x^2}\,dx = \frac{\sqrt{\pi}}{2}$",
        r"$\sum_{n=1}^\infty \frac{1}{n^2} = \frac{\pi^2}{6}$",
        r"$\hat{f}(\xi) = \int f(x)\,e^{-2\pi i x\xi}\,dx$",
        r"$\nabla\times\mathbf{B} - \frac{1}{c^2}\frac{\partial\mathbf{E}}{\partial t} = \mu_0\mathbf{J}$",
    )
    for i in range(20):
        shown.text(0.05 + 0.5 * (i % 2), 0.92 - 0.095 * (i // 2), rng.choice(texts), fontsize=15)


def city(rng: random.Random) -> Image.Image:
    """A map: land, water, parks, roads with borders, names; drawn large and made smaller, so that edges are smooth."""
    image = Image.new("RGB", (2000, 1500), "#f2efe9")
    draw = ImageDraw.Draw(image)
    for _ in range(18):
        x, y = rng.randrange(2000), rng.randrange(1500)
        points = [
            (
                x + rng.uniform(60, 260) * math.cos(a / 9 * math.tau),
                y + rng.uniform(60, 260) * math.sin(a / 9 * math.tau),
            )
            for a in range(9)
        ]
        draw.polygon(points, rng.choice(("#aad3df", "#c8facc", "#e0dfdf", "#add19e")))
    for _ in range(260):
        x, y = rng.randrange(2000), rng.randrange(1500)
        draw.rectangle((x, y, x + rng.randrange(14, 50), y + rng.randrange(14, 50)), "#d9d0c9", "#bbaa99")
    roads = []
    for _ in range(26):
        x, y, a = rng.uniform(0, 2000), rng.uniform(0, 1500), rng.uniform(0, math.tau)
        road = [(x, y)]
        for _ in range(40):
            a += rng.gauss(0, 0.2)
            x, y = x + 60 * math.cos(a), y + 60 * math.sin(a)
            road.append((x, y))
        roads.append((road, rng.choice((10, 14, 22))))
    for extra, colours in (
        (4, {10: "#bbbbbb", 14: "#c0a060", 22: "#b06030"}),
        (0, {10: "white", 14: "#fcd6a4", 22: "#f9b29c"}),
    ):
        for road, width in roads:
            draw.line(road, colours[width], width + extra, joint="curve")
    image = image.resize((1000, 750), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(image)
    for _ in range(60):
        draw.text(
            (rng.randrange(1000), rng.randrange(750)),
            rng.choice(WORDS).capitalize(),
            "#333333",
            font(12),
            stroke_width=2,
            stroke_fill="white",
        )
    return image


def comic(rng: random.Random) -> Image.Image:
    """Flat colours, black outlines, dots, balloons; drawn large and made smaller."""
    image = Image.new("RGB", (2400, 1600), "white")
    draw = ImageDraw.Draw(image)
    for panel in range(4):
        x, y = 40 + 1180 * (panel % 2), 40 + 780 * (panel // 2)
        draw.rectangle(
            (x, y, x + 1140, y + 740), rng.choice(("#ffd23f", "#3bceac", "#ee4266", "#8fb8ed")), "black", 8
        )
        for i in range(30):
            for j in range(20):
                draw.ellipse((x + 20 + 37 * i, y + 14 + 36 * j, x + 32 + 37 * i, y + 26 + 36 * j), "#ffffff")
        for _ in range(5):
            cx, cy = x + rng.randrange(200, 900), y + rng.randrange(200, 560)
            a, b = rng.randrange(60, 180), rng.randrange(60, 160)
            draw.ellipse(
                (cx - a, cy - b, cx + a, cy + b),
                rng.choice(("#f4a261", "#264653", "#e76f51", "#e9c46a")),
                "black",
                9,
            )
        draw.rounded_rectangle((x + 60, y + 30, x + 760, y + 150), 60, "white", "black", 7)
        draw.text(
            (x + 410, y + 90), sentence(rng, 4).upper(), "black", font(34, "DejaVuSans-Bold.ttf"), anchor="mm"
        )
    return image.resize((1200, 800), Image.Resampling.LANCZOS)


def tiles(rng: random.Random) -> Image.Image:
    """Pixel art, enlarged four times: a level made of 16 x 16 tiles."""
    kinds = []
    for _ in range(14):
        palette = [tuple(rng.randrange(0, 256, 17) for _ in range(3)) for _ in range(5)]
        cells = np.array(
            [[palette[min(4, int(abs(rng.gauss(0, 1.6))))] for _ in range(16)] for _ in range(16)], np.uint8
        )
        kinds.append(Image.fromarray(cells))
    image = Image.new("RGB", (320, 224))
    for y in range(0, 224, 16):
        for x in range(0, 320, 16):
            image.paste(kinds[min(13, int(abs(rng.gauss(0, 3)))) if y > 100 else rng.randrange(2)], (x, y))
    return image.resize((1280, 896), Image.Resampling.NEAREST)


def sprite(rng: random.Random) -> Image.Image:
    """Pixel art in its own size, 32 colours, dithered sky."""
    sky = np.asarray(gradient((256, 224), (40, 40, 120), (250, 150, 90), 1.4)).astype(int)
    bayer = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]])
    values = (sky + np.tile(bayer, (56, 64))[..., None] * 3) // 48 * 48
    image = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(40):
        x, h = rng.randrange(256), rng.randrange(20, 120)
        draw.rectangle(
            (x, 224 - h, x + rng.randrange(6, 30), 224), rng.choice(("#202030", "#303048", "#181828"))
        )
        for k in range(0, h - 6, 6):
            draw.point((x + 2 + rng.randrange(4), 224 - h + 3 + k), "#ffe080")
    return image


def circuit(rng: random.Random) -> Image.Image:
    """Black lines on white, no smoothing."""
    image = Image.new("1", (1400, 1000), 1)
    draw = ImageDraw.Draw(image)
    for _ in range(160):
        x, y = 20 * rng.randrange(68), 20 * rng.randrange(48)
        w, h = 20 * rng.randrange(1, 4), 20 * rng.randrange(1, 3)
        draw.rectangle((x, y, x + w, y + h), None, 0)
        draw.line((x + w, y + h // 2, x + w + 60, y + h // 2, x + w + 60, y + 100), 0)
        draw.ellipse((x - 3, y - 3, x + 3, y + 3), 0)
        draw.text((x + 3, y + 3), f"R{rng.randrange(99)}", 0, font(12))
    return image


def scan(rng: random.Random) -> Image.Image:
    """A scanned page: grey, soft, slightly turned, with grain."""
    clean = page(rng).convert("L").resize((827, 1170), Image.Resampling.LANCZOS)
    soft = clean.rotate(0.6, Image.Resampling.BICUBIC, fillcolor=255).filter(ImageFilter.GaussianBlur(0.7))
    grain = np.random.default_rng(rng.randrange(1 << 30)).normal(0, 2.5, (1170, 827))
    return Image.fromarray(np.clip(np.asarray(soft) * 0.86 + 14 + grain, 0, 255).astype(np.uint8))


def slide(rng: random.Random) -> Image.Image:
    """A slide with a gradient behind it."""
    image = gradient((1600, 900), (18, 32, 64), (90, 30, 90), 0.8)
    draw = ImageDraw.Draw(image)
    draw.text((110, 90), sentence(rng, 4), "white", font(64, "DejaVuSans-Bold.ttf"))
    for i in range(5):
        draw.ellipse((120, 262 + 100 * i, 144, 286 + 100 * i), "#ffb000")
        draw.text((170, 250 + 100 * i), sentence(rng, 7), "#e8e8f0", font(36))
    draw.rounded_rectangle((1180, 480, 1500, 800), 30, "#ffffff")
    draw.pieslice((1220, 520, 1460, 760), 0, 220, "#d9534f")
    draw.pieslice((1220, 520, 1460, 760), 220, 360, "#3449be")
    return image


def codes(rng: random.Random) -> Image.Image:
    """A label with bar codes and random square codes."""
    image = Image.new("L", (800, 600), 255)
    draw = ImageDraw.Draw(image)
    for k in range(3):
        for i in range(29):
            for j in range(29):
                if rng.random() < 0.5:
                    draw.rectangle((30 + 255 * k + 8 * i, 30 + 8 * j, 37 + 255 * k + 8 * i, 37 + 8 * j), 0)
        for i in range(80):
            if rng.random() < 0.5:
                draw.rectangle((30 + 255 * k + 3 * i, 320, 32 + 255 * k + 3 * i, 440), 0)
        draw.text((30 + 255 * k, 450), f"{rng.randrange(10**12):012d}", 0, font(22, "DejaVuSansMono.ttf"))
    return image


def icons(rng: random.Random) -> Image.Image:
    """Icons on a transparent ground."""
    image = Image.new("RGBA", (1024, 1024), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    for i in range(64):
        x, y = 128 * (i % 8), 128 * (i // 8)
        colour = rng.choice(("#e63946", "#457b9d", "#2a9d8f", "#f4a261", "#6d597a"))
        shape = rng.randrange(3)
        if shape == 0:
            draw.ellipse((x + 16, y + 16, x + 112, y + 112), colour)
        elif shape == 1:
            draw.rounded_rectangle((x + 16, y + 16, x + 112, y + 112), 22, colour)
        else:
            draw.regular_polygon((x + 64, y + 64, 50), rng.choice((3, 5, 6)), rng.randrange(360), colour)
        draw.text(
            (x + 64, y + 64),
            rng.choice("ABCDEFGHKMNPRSTXYZ"),
            "white",
            font(44, "DejaVuSans-Bold.ttf"),
            anchor="mm",
        )
    return image.resize((512, 512), Image.Resampling.LANCZOS)


def magazine(rng: random.Random) -> Image.Image:
    """Columns of text around photographs."""
    image = Image.new("RGB", (1100, 1500), "white")
    draw = ImageDraw.Draw(image)
    draw.text((60, 50), sentence(rng, 3), "#a01020", font(54, "DejaVuSerif-Bold.ttf"))
    image.paste(photograph(rng, 640, 420), (60, 140))
    image.paste(photograph(rng, 300, 300), (740, 900))
    face = font(15, "DejaVuSerif.ttf")
    for box in ((60, 590, 380, 1450), (400, 590, 720, 1450), (740, 140, 1040, 880), (740, 1220, 1040, 1450)):
        paragraph(draw, rng, box, face, "#1a1a1a")
    return image


DRAWN = (
    page, editor, terminal, smooth_text, sheet, site, chat, lines, bars, scatter, surface, formulas, city, comic,
    tiles, sprite, circuit, scan, slide, codes, icons, magazine,
)  # fmt: skip


def drawn() -> Iterator[tuple[str, Image.Image]]:
    """The pictures made here, always the same."""
    for number, make in enumerate(DRAWN):
        yield make.__name__, make(random.Random(number))


def size(image: Image.Image, kind: str, **options: object) -> int:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.tell()


def measure(name: str, image: Image.Image, effort: int, jxl: bool) -> tuple[float, ...]:
    """Prints a line; bytes of WebP, JPEG XL and PNG, and ours, whose pixels are checked."""
    from latens.codec import LosslessCodec
    from latens.format import read
    from latens.io import from_pil, to_pil

    codec, picture = LosslessCodec(), from_pil(image)
    start = time.perf_counter()
    data = codec.encode(picture, effort=effort)
    middle = time.perf_counter()
    decoded = codec.decode(read(data))[0]
    end = time.perf_counter()
    if to_pil(decoded).tobytes() != to_pil(picture).tobytes():
        raise SystemExit(f"{name}: pixels differ")
    # The others have neither palettes nor single bits as such.
    plain = image.convert("L" if image.mode == "1" else "RGB") if image.mode in ("1", "P") else image
    webp = size(plain, "WEBP", lossless=True, method=6, exact=True, quality=100)
    png = size(image, "PNG", optimize=True)
    other = size(plain, "JXL", lossless=True, effort=7) if jxl else 0
    print(
        f"{name:<14} {image.width:>5} x {image.height:<5} ours {len(data):>9,}  "
        f"WebP {webp:>9,} ({len(data) / webp:.3f})  "
        + (f"JPEG XL {other:>9,} ({len(data) / other:.3f})  " if jxl else "")
        + f"PNG {png:>9,}  {middle - start:.2f} s, {end - middle:.2f} s",
        flush=True,
    )
    return len(data) / webp, len(data) / (other or webp), len(data) / png


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*", type=Path, help="pictures of others")
    parser.add_argument("--effort", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="write the drawings made here into this folder, as PNG")
    args = parser.parse_args()
    try:
        import pillow_jxl  # noqa: F401
    except ImportError:
        print("without JPEG XL: pillow-jxl-plugin is not installed")
        jxl = False
    else:
        jxl = True
    sources = {"drawings": drawn()}
    for folder in args.folders:
        found = [
            path
            for path in sorted(folder.iterdir())
            if path.suffix.lower() in (".png", ".webp", ".tif", ".bmp")
        ]
        sources[folder.name] = ((path.stem, Image.open(path)) for path in found)
    for source, images in sources.items():
        ratios = []
        for name, image in images:
            if args.keep and source == "drawings":
                args.keep.mkdir(parents=True, exist_ok=True)
                image.save(args.keep / f"{name}.png")
            ratios.append(measure(name, image, args.effort, jxl))
        webp, other, png = (geometric_mean(column) for column in zip(*ratios, strict=True))
        print(f"{source}: {webp:.3f} of WebP, {other:.3f} of JPEG XL, {png:.3f} of PNG (geometric means)")


if __name__ == "__main__":
    main()
