"""The pictures of an inspection (matplotlib, without any global state)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as PilImage
from PIL import ImageColor

from latens.errors import UnavailableError
from latens.inspect.anatomy import REACH, Anatomy, RatePoint, spatial_correlation

__all__ = ["figures", "require_matplotlib"]

_INK, _GREY, _GRID = "#1c2733", "#7c8894", "#dfe4e9"
_BLUE, _ORANGE, _GREEN, _RED = "#2b6cb0", "#dd7a1f", "#2f8f6b", "#c2413a"
_PARTS = {"container": _GREY, "coder states": "#b9c2cb", "z": _ORANGE, "y": _BLUE, "drawn blocks": _GREEN}
_STYLE = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": _GREY,
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "grid.color": _GRID,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "text.color": _INK,
    "legend.frameon": False,
    "figure.dpi": 130,
    "figure.constrained_layout.use": True,
}
_NORMALISED = 4.0  # normalised latents are shown from minus this to plus this
_SHOWN = 12


def require_matplotlib() -> Any:
    """matplotlib.

    Raises:
        UnavailableError: it is not installed.
    """
    try:
        import matplotlib
        import matplotlib.figure
    except ImportError as error:
        raise UnavailableError(
            "pictures of an inspection need matplotlib: pip install 'latens[eval]'"
        ) from error
    return matplotlib


def figures(anatomy: Anatomy, curve: Sequence[RatePoint] = ()) -> dict[str, bytes]:
    """All pictures by name, as PNG files.

    Args:
        anatomy: what to show.
        curve: the same picture at all qualities; the pictures of it are left out where there are fewer than two.

    Raises:
        UnavailableError: matplotlib is not installed.
    """
    matplotlib = require_matplotlib()
    with matplotlib.rc_context(_STYLE):
        made = {
            "heatmap": _heatmap(anatomy),
            "channels": _channels(anatomy),
            "strongest": _strongest(anatomy),
            "histograms": _histograms(anatomy),
            "parts": _sizes(anatomy),
        }
        if anatomy.y.scale is not None:
            made["maps"] = _maps(anatomy)
            made["hyperprior"] = _hyperprior(anatomy)
            made["correlation"] = _correlation(anatomy)
        if anatomy.drawn is not None and anatomy.drawn.any():
            made["blocks"] = _blocks(anatomy)
        if len(curve) > 1:
            made["staircase"] = _staircase(anatomy, curve)
            made["side-information"] = _side_information(curve)
        pngs = {name: _png(figure) for name, figure in made.items()}
    for name, pixels in (
        ("original", anatomy.original),
        ("reconstruction", anatomy.reconstruction),
        ("difference", anatomy.difference()),
    ):
        buffer = io.BytesIO()
        PilImage.fromarray(pixels).save(buffer, "PNG")
        pngs[name] = buffer.getvalue()
    return pngs


def _figure(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    # No date and no version inside: the same figures give the same file.
    figure.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0.08, metadata={"Software": None})
    return buffer.getvalue()


def _visible(anatomy: Anatomy, latent: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The positions ``(..., h, w)`` that the picture itself takes, without what pads it to the grid."""
    height, width = anatomy.original.shape[:2]
    return latent[..., : -(-height // anatomy.step), : -(-width // anatomy.step)]


def _picture(axes: Any, anatomy: Anatomy, values: npt.NDArray[Any], **options: Any) -> Any:
    """A map of positions, in the proportions of the picture."""
    axes.set_axis_off()
    return axes.imshow(_visible(anatomy, values), interpolation="nearest", **options)


def _share(bits: float, total: float) -> str:
    return f"{100 * bits / max(total, 1e-12):.1f} %"


def _amount(bits: float) -> str:
    size = bits / 8
    return f"{size / 1000:.1f} kB" if size >= 1000 else f"{size:.0f} bytes"


# -- where -------------------------------------------------------------------------------------------------


def _heatmap(anatomy: Anatomy) -> Any:
    height, width = anatomy.original.shape[:2]
    per_pixel = anatomy.bit_map() / anatomy.step**2
    figure, ((left, right),) = _figure(11, 11 * height / width / 2.15 + 0.7, 1, 2)
    top = float(np.quantile(per_pixel, 0.995))
    shown = left.imshow(
        per_pixel,
        cmap="inferno",
        vmin=0,
        vmax=top,
        interpolation="nearest",
        extent=(0, per_pixel.shape[1] * anatomy.step, per_pixel.shape[0] * anatomy.step, 0),
    )
    left.set_title("Cost of every position")
    grey = anatomy.original.mean(axis=2)
    right.imshow(grey, cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0))
    # Smoothed and see-through, so that the content stays visible.
    strength = np.clip(per_pixel / max(top, 1e-12), 0, 1)
    right.imshow(
        per_pixel,
        cmap="inferno",
        vmin=0,
        vmax=top,
        alpha=0.15 + 0.65 * strength,
        interpolation="bilinear",
        extent=(0, per_pixel.shape[1] * anatomy.step, per_pixel.shape[0] * anatomy.step, 0),
    )
    right.set_title("Over the picture")
    for axes in (left, right):
        axes.set_axis_off()
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
    figure.colorbar(
        shown, ax=[left, right], label="bits per pixel", shrink=0.85, pad=0.015, extend="max"
    ).outline.set_visible(False)
    return figure


def _blocks(anatomy: Anatomy) -> Any:
    """What is drawn, in colour with a frame; what the model makes, in grey."""
    height, width = anatomy.original.shape[:2]
    assert anatomy.drawn is not None
    inside, (count, of) = anatomy.drawn, anatomy.drawn_blocks()
    # Where both kinds meet, two pixels wide.
    edge = np.zeros_like(inside)
    edge[:, 1:] |= inside[:, 1:] != inside[:, :-1]
    edge[1:] |= inside[1:] != inside[:-1]
    edge[:, :-1] |= edge[:, 1:]
    edge[:-1] |= edge[1:]
    grey = 0.55 * anatomy.original.mean(axis=2, keepdims=True) + 100
    picture = np.where(inside[..., None], anatomy.original, np.clip(grey, 0, 255)).astype(np.uint8)
    picture[edge] = ImageColor.getrgb(_ORANGE)
    figure, ((axes,),) = _figure(8, 8 * height / width + 0.5)
    axes.set_axis_off()
    axes.imshow(picture, interpolation="nearest")
    axes.set_title(f"something is drawn in {count:,} of {of:,} blocks, the model makes what is grey")
    return figure


def _channels(anatomy: Anatomy) -> Any:
    bits = anatomy.y.channel_bits()
    order = anatomy.y.strongest(len(bits))
    total = float(bits.sum())
    figure, ((axes,),) = _figure(11, 3.9)
    colours = [_ORANGE if rank < 5 else _BLUE for rank in range(len(order))]
    axes.bar(range(len(order)), bits[order] / 8, width=1.0, color=colours, linewidth=0)
    axes.set_xlim(-1, len(order))
    axes.set_ylim(0, max(bits.max() / 8, 1e-9) * 1.12)
    axes.set_xlabel("channels of y, dearest first")
    axes.set_ylabel("bytes")
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    idle = int((bits < 1).sum())
    axes.set_title(
        f"Bytes per channel: {len(bits)} channels, {idle} of them idle"
        if idle
        else f"Bytes per channel: {len(bits)} channels"
    )
    text = "\n".join(
        f"channel {c:>3}   {_amount(bits[c]):>10}   {_share(bits[c], total):>6}" for c in order[:5]
    )
    axes.text(
        0.985, 0.62, text, transform=axes.transAxes, ha="right", va="top", family="monospace", fontsize=9,
        color=_ORANGE, bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85},
    )  # fmt: skip
    share = axes.twinx()
    share.plot(
        range(len(order)), 100 * np.cumsum(bits[order]) / max(total, 1e-12), color=_GREEN, linewidth=1.6
    )
    share.set_ylim(0, 112)
    share.set_yticks([0, 25, 50, 75, 100])
    share.set_ylabel("share of the dearest so far, %", color=_GREEN)
    share.tick_params(axis="y", colors=_GREEN)
    return figure


def _strongest(anatomy: Anatomy) -> Any:
    channels = anatomy.y.strongest(_SHOWN)
    bits = anatomy.y.channel_bits()
    columns = 4
    rows = -(-len(channels) // columns)
    aspect = anatomy.original.shape[0] / anatomy.original.shape[1]
    figure, grid = _figure(11, rows * (11 / columns * aspect * 0.93 + 0.38) + 0.2, rows, columns)
    for axes, channel in zip(grid.flat, channels, strict=False):
        values = anatomy.y.values[channel]
        limit = max(float(np.quantile(np.abs(values), 0.99)), 0.5)
        _picture(axes, anatomy, values, cmap="RdBu_r", vmin=-limit, vmax=limit)
        axes.set_title(
            f"{channel}  ·  {_share(bits[channel], bits.sum())}  ·  ±{limit:.0f}"
            if limit >= 10
            else f"{channel}  ·  {_share(bits[channel], bits.sum())}  ·  ±{limit:.1f}",
            fontsize=9.5,
            fontweight="normal",
        )
    for axes in grid.flat[len(channels) :]:
        axes.set_axis_off()
    return figure


# -- what the model expected ---------------------------------------------------------------------------------


def _maps(anatomy: Anatomy) -> Any:
    y = anatomy.y
    aspect = anatomy.original.shape[0] / anatomy.original.shape[1]
    maps: list[tuple[str, npt.NDArray[Any], str]] = []
    if y.scale is not None:
        # The geometric mean over channels: scales span three decades.
        maps.append(("Predicted scale, steps", np.exp(np.log(y.scale).mean(axis=0)), "viridis"))
    if y.mean is not None:
        maps.append(("Predicted mean, steps (size)", np.abs(y.mean).mean(axis=0), "viridis"))
    maps.append(("What was coded, steps (size)", np.abs(y.symbols).mean(axis=0), "viridis"))
    figure, (row,) = _figure(3.85 * len(maps), 3.3 * aspect + 0.75, 1, len(maps))
    for axes, (title, values, colours) in zip(row, maps, strict=True):
        shown = _picture(axes, anatomy, values, cmap=colours, vmin=0 if "scale" not in title else None)
        axes.set_title(title)
        figure.colorbar(shown, ax=axes, shrink=0.8, pad=0.02).outline.set_visible(False)
    return figure


def _hyperprior(anatomy: Anatomy) -> Any:
    """Latent, mean, scale and what is left, as in Minnen et al. (2018), figure 2."""
    from matplotlib.colors import LogNorm

    y = anatomy.y
    channels = y.strongest(3)
    normalised = y.normalised()
    aspect = anatomy.original.shape[0] / anatomy.original.shape[1]
    titles = ["latent", "predicted mean", "predicted scale", "normalised"]
    if y.mean is None:
        titles.remove("predicted mean")
    figure, grid = _figure(
        2.9 * len(titles), len(channels) * (2.45 * aspect + 0.2) + 0.4, len(channels), len(titles)
    )
    for rank, (row, channel) in enumerate(zip(grid, channels, strict=True)):
        values, cells = y.values[channel], iter(row)
        limit = max(float(np.quantile(np.abs(values), 0.99)), 0.5)
        for title in titles:
            axes = next(cells)
            if title == "predicted scale" and y.scale is not None:
                norm = LogNorm(
                    max(float(y.scale[channel].min()), 0.1), max(float(y.scale[channel].max()), 0.2)
                )
                shown = _picture(axes, anatomy, y.scale[channel], cmap="viridis", norm=norm)
            elif title == "normalised":
                shown = _picture(
                    axes, anatomy, normalised[channel], cmap="RdBu_r", vmin=-_NORMALISED, vmax=_NORMALISED
                )
            else:
                picture = y.mean[channel] if title == "predicted mean" and y.mean is not None else values
                shown = _picture(axes, anatomy, picture, cmap="RdBu_r", vmin=-limit, vmax=limit)
            bar = figure.colorbar(shown, ax=axes, shrink=0.82, pad=0.02)
            bar.outline.set_visible(False)
            bar.ax.tick_params(labelsize=8)
            bar.ax.minorticks_off()
            if rank == 0:
                axes.set_title(title)
        row[0].text(
            -0.04, 0.5, f"channel {channel}", transform=row[0].transAxes, rotation=90, ha="right", va="center"
        )
    return figure


def _correlation(anatomy: Anatomy) -> Any:
    y = anatomy.y
    reach = 4
    channels = y.strongest(32)
    before = spatial_correlation(_visible(anatomy, y.values[channels]), reach)
    after = spatial_correlation(_visible(anatomy, y.normalised()[channels]), reach)
    figure, (row,) = _figure(8.2, 4.1, 1, 2)
    for axes, values, title in zip(row, (before, after), ("Latent", "Normalised"), strict=True):
        shown = axes.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1, extent=(-4.5, 4.5, 4.5, -4.5))
        around = values.copy()
        around[reach, reach] = np.nan
        largest = float(np.nanmax(np.abs(around))) if np.isfinite(around).any() else 0.0
        axes.set_title(f"{title}: neighbours up to {largest:.2f}")
        axes.set_xticks([-4, -2, 0, 2, 4])
        axes.set_yticks([-4, -2, 0, 2, 4])
        axes.set_xlabel("positions apart")
        for dy in range(-1, 2):
            for dx in range(-1, 2):
                value = values[reach + dy, reach + dx]
                if np.isfinite(value):
                    colour = "white" if abs(value) > 0.55 else _INK
                    axes.text(dx, dy, f"{value:.2f}", ha="center", va="center", fontsize=6.5, color=colour)
    figure.colorbar(shown, ax=list(row), shrink=0.8, label="correlation").outline.set_visible(False)
    return figure


def _histograms(anatomy: Anatomy) -> Any:
    y = anatomy.y
    observed, expected = y.observed(), y.expected
    channels = y.strongest(6)
    figure, grid = _figure(11, 5.2, 2, 3, sharex=True)
    symbols = np.arange(-REACH, REACH + 1)
    floor = 0.5 / y.symbols[0].size
    for axes, channel in zip(grid.flat, channels, strict=False):
        axes.bar(
            symbols, np.maximum(observed[channel], floor), width=0.85, color=_BLUE, alpha=0.55, label="picture",
            bottom=0,
        )  # fmt: skip
        axes.plot(
            symbols, expected[channel], color=_ORANGE, linewidth=1.8, marker="o", markersize=3, label="model"
        )
        axes.set_yscale("log")
        axes.set_ylim(floor, 1.5)
        axes.set_title(f"channel {channel}")
        axes.grid(axis="y")
        axes.set_axisbelow(True)
    for axes in grid.flat[len(channels) :]:
        axes.set_axis_off()
    for axes in grid[-1]:
        axes.set_xlabel("coded symbol")
    for axes in grid[:, 0]:
        axes.set_ylabel("probability")
    grid[0, 0].legend(loc="upper right", fontsize=9)
    return figure


# -- how much ------------------------------------------------------------------------------------------------


def _sizes(anatomy: Anatomy) -> Any:
    figure, (row,) = _figure(11, 3.1, 1, 2, width_ratios=[1.55, 1])
    left, right = row
    rows = [("real file", [(p.name, float(p.bytes)) for p in anatomy.parts])]
    rows.append(("theoretical", [(p.name, p.ideal_bits / 8) for p in anatomy.parts]))
    for position, (_, pieces) in enumerate(rows):
        start = 0.0
        for name, size in pieces:
            left.barh(position, size, left=start, color=_PARTS[name], height=0.55)
            if size > 0.08 * anatomy.size:
                left.text(
                    start + size / 2, position, f"{name}\n{size:,.0f}", ha="center", va="center", color="white",
                    fontsize=9,
                )  # fmt: skip
            start += size
        left.text(start + 0.01 * anatomy.size, position, f"{start:,.0f}", va="center", fontsize=9)
    left.set_yticks(range(len(rows)), [name for name, _ in rows])
    left.set_xlim(0, anatomy.size * 1.13)
    left.set_xlabel("bytes")
    left.set_title("Theory and file")
    left.legend(
        handles=[left.barh(0, 0, color=_PARTS[p.name], label=p.name) for p in anatomy.parts],
        loc="upper center",
        bbox_to_anchor=(0.5, -0.28),
        ncols=4,
        fontsize=9,
    )
    baselines = anatomy.baselines()
    bars = [
        ("this file", anatomy.size, _BLUE),
        ("symbols, zlib 9", baselines.zlib, _GREY),
        ("symbols, int16", baselines.int16, _GREY),
        ("pixels, 8 bits", anatomy.original.size, _GREY),
    ]
    for position, (_, size, colour) in enumerate(bars):
        right.barh(position, size, color=colour, height=0.6)
        right.text(size * 1.08, position, f"{size:,}", va="center", fontsize=9)
    right.set_xscale("log")
    right.set_yticks(range(len(bars)), [name for name, _, _ in bars])
    right.invert_yaxis()
    right.set_xlim(anatomy.size / 4, max(size for _, size, _ in bars) * 7)
    right.set_xlabel("bytes, logarithmic")
    right.set_title("Beside storing the symbols plainly")
    return figure


def _staircase(anatomy: Anatomy, curve: Sequence[RatePoint]) -> Any:
    figure, ((axes,),) = _figure(7.6, 4.4)
    bpp, quality = [p.bpp for p in curve], [p.psnr for p in curve]
    axes.step(bpp, quality, where="post", color=_GRID, linewidth=1.6)
    axes.plot(bpp, quality, color=_BLUE, linewidth=1.6, marker="o", markersize=5)
    axes.plot([anatomy.bpp], [anatomy.psnr], "o", markersize=11, markerfacecolor="none", color=_ORANGE)
    for point in curve:
        axes.annotate(
            f"{point.quality:g}", (point.bpp, point.psnr), textcoords="offset points", xytext=(5, -12), fontsize=8,
            color=_GREY,
        )  # fmt: skip
    axes.set_xlabel("bits per pixel, real file")
    axes.set_ylabel("PSNR RGB, dB")
    axes.set_title("This picture at all qualities")
    axes.set_xlim(0, max(bpp) * 1.06)
    axes.grid()
    axes.set_axisbelow(True)
    return figure


def _side_information(curve: Sequence[RatePoint]) -> Any:
    figure, (row,) = _figure(11, 3.8, 1, 2)
    left, right = row
    bpp = [p.bpp for p in curve]
    side = [p.part_bpp("z") for p in curve]
    left.plot(bpp, side, color=_ORANGE, marker="o", markersize=5, linewidth=1.6)
    left.set_ylabel("bits per pixel of side information")
    left.set_title("Side information")
    right.plot(
        bpp, [100 * s / b for s, b in zip(side, bpp, strict=True)], color=_ORANGE, marker="o", markersize=5,
        linewidth=1.6,
    )  # fmt: skip
    right.set_ylabel("share of the file, %")
    right.set_title("Its share")
    for axes in row:
        axes.set_xlabel("bits per pixel, real file")
        axes.set_xlim(0, max(bpp) * 1.06)
        axes.set_ylim(0, None)
        axes.grid()
        axes.set_axisbelow(True)
    return figure
