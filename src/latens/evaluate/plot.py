"""Rate-distortion plots with matplotlib or plotly, neither of which is needed otherwise."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latens.errors import OutputError, ResultsError
from latens.evaluate.quality import MEASURES
from latens.evaluate.results import Curve
from latens.io import check_output, printable

__all__ = ["BACKENDS", "LABELS", "plot"]

BACKENDS = ("matplotlib", "plotly")
LABELS = {key: f"{m.label} [{m.unit}]" if m.unit else m.label for key, m in MEASURES.items()}
_COLOURS = (
    "#2257c9", "#d9480f", "#0b8457", "#9c36b5", "#b7860b", "#0b8fa8", "#c2255c", "#5c6470", "#6741d9", "#5f8700",
)  # fmt: skip


def plot(
    curves: Mapping[str, Curve],
    output: Path | None,
    *,
    metric: str = "psnr_rgb",
    rate: str = "bits per pixel",
    title: str = "",
    backend: str = "matplotlib",
    size: tuple[float, float] = (9.0, 6.0),
    axes: tuple[float, float, float, float] | None = None,
    log: bool = False,
    dashed: frozenset[str] = frozenset(),
    show: bool = False,
    force: bool = False,
) -> None:
    """Draw curves of a measure over bits per pixel.

    Args:
        curves: by name.
        output: picture to write (matplotlib: .png, .svg or .pdf; plotly: .html, which needs no network), or None.
        metric: what the curves are of.
        rate: what their rates are in.
        title: above the plot.
        backend: of :data:`BACKENDS`.
        size: width and height in inches.
        axes: limits of rate and measure: xmin, xmax, ymin, ymax.
        log: logarithmic rate axis.
        dashed: curves with dashed lines, such as published ones.
        show: open it.
        force: replace an existing picture.

    Raises:
        OutputError: the backend is not installed or does not write such files, or the file cannot be written.
        ResultsError: nothing to draw.
    """
    if not curves:
        raise ResultsError(f"no curves of {printable(metric)} in these results")
    suffixes = (".png", ".svg", ".pdf") if backend == "matplotlib" else (".html",)
    if output is not None:
        if output.suffix not in suffixes:
            raise OutputError(f"{printable(output)}: {printable(backend)} writes {', '.join(suffixes)}")
        check_output(output, force=force)
    draw = {"matplotlib": _matplotlib, "plotly": _plotly}.get(backend)
    if draw is None:
        raise OutputError(f"backend {printable(backend)}: expected {' or '.join(BACKENDS)}")
    try:
        draw(curves, output, (rate, LABELS.get(metric, metric)), title, size, axes, log, dashed, show)
    except ImportError as error:
        raise OutputError(f"plots need {backend}: pip install 'latens[eval]'") from error
    except OSError as error:
        raise OutputError(f"{printable(output or '')}: cannot be written ({error.strerror})") from error


def _matplotlib(
    curves: Mapping[str, Curve],
    output: Path | None,
    labels: tuple[str, str],
    title: str,
    size: tuple[float, float],
    axes: tuple[float, float, float, float] | None,
    log: bool,
    dashed: frozenset[str],
    show: bool,
) -> None:
    if not show:
        importlib.import_module("matplotlib").use("agg")
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    ticker: Any = importlib.import_module("matplotlib.ticker")
    figure, area = pyplot.subplots(figsize=size, layout="constrained")
    try:
        for i, (name, curve) in enumerate(curves.items()):
            published = name in dashed
            # A dollar sign would begin a formula, a leading underscore hide the entry.
            shown = printable(name).replace("$", r"\$")
            area.plot(
                curve.bpp, curve.quality, label=shown if not shown.startswith("_") else f"\u200b{shown}",
                color=_COLOURS[i % len(_COLOURS)], linestyle="--" if published else "-",
                linewidth=1.1 if published else 1.9, marker=None if published else "o", markersize=3.5,
            )  # fmt: skip
        if log:
            area.set_xscale("log")
            area.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
            area.xaxis.set_minor_formatter(ticker.NullFormatter())
            area.set_xticks([0.05, 0.1, 0.2, 0.5, 1, 2, 4])
        if axes is not None:
            area.set_xlim(axes[0], axes[1])
            area.set_ylim(axes[2], axes[3])
        area.set(xlabel=labels[0], ylabel=labels[1])
        if title:
            area.set_title(printable(title).replace("$", r"\$"), loc="left", fontsize=11)
        area.grid(color="#e4e7eb", linewidth=0.8)
        area.spines[["top", "right"]].set_visible(False)
        area.legend(frameon=False, fontsize=9, loc="lower right", ncols=1 if len(curves) < 12 else 2)
        if output is not None:
            metadata = {"Date": None} if output.suffix == ".svg" else {}
            pyplot.rcParams["svg.hashsalt"] = "latens"  # the same curves, the same file
            figure.savefig(output, dpi=160, metadata=metadata)
        if show:
            pyplot.show()
    finally:
        pyplot.close(figure)


def _plotly(
    curves: Mapping[str, Curve],
    output: Path | None,
    labels: tuple[str, str],
    title: str,
    size: tuple[float, float],
    axes: tuple[float, float, float, float] | None,
    log: bool,
    dashed: frozenset[str],
    show: bool,
) -> None:
    from html import escape
    from math import log10

    graph: Any = importlib.import_module("plotly.graph_objects")
    figure = graph.Figure()
    for i, (name, curve) in enumerate(curves.items()):
        line = {"color": _COLOURS[i % len(_COLOURS)], "dash": "dash" if name in dashed else "solid"}
        # Plotly reads names and titles as markup.
        figure.add_scatter(
            x=curve.bpp, y=curve.quality, name=escape(printable(name)), line=line, mode="lines+markers"
        )
    figure.update_layout(
        title=escape(printable(title)), template="plotly_white", width=100 * size[0], height=100 * size[1],
        xaxis={"title": labels[0], "type": "log" if log else "linear"}, yaxis={"title": labels[1]},
    )  # fmt: skip
    if axes is not None:
        x = [log10(limit) for limit in axes[:2]] if log else list(axes[:2])
        figure.update_layout(xaxis_range=x, yaxis_range=list(axes[2:]))
    if output is not None:
        figure.write_html(output, include_plotlyjs=True)
    if show:
        figure.show()
