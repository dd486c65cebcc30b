"""Commands that measure and compare: ``latens bench``, ``eval``, ``report``, ``plot`` and ``find``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from latens.cli.messages import on_terminal, say
from latens.errors import CodecError
from latens.io import check_output, printable

if TYPE_CHECKING:
    pass

EXIT_PARTLY = 3

Codecs = Annotated[
    str,
    typer.Option(
        "--codecs",
        "-c",
        help="Comma-separated: jpeg, jpeg2000, webp, avif, jxl, hevc, av1, aom, vvc, latens, bpg, tfci, hm, vtm, "
        "a model of 'latens models' (also --published), or a weights file; options follow as name:key=value.",
    ),
]
Metric = Annotated[str, typer.Option("--metric", help="psnr_rgb, psnr_y, ms_ssim or lpips.")]
EncoderPath = Annotated[
    str | None, typer.Option("--encoder-path", help="Encoder of bpg, hm or vtm; the script of tfci.")
]
DecoderPath = Annotated[str | None, typer.Option("--decoder-path", help="Decoder of bpg, hm or vtm.")]
Config = Annotated[str | None, typer.Option("--config", help="Configuration file of hm or vtm.")]
ThreadsOfCodecs = Annotated[int, typer.Option("--threads", min=1, help="Threads that each codec may use.")]


def _numbers(text: str, option: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if part)
    except ValueError:
        raise CodecError(f"{option} {printable(text)}: expected numbers, separated by commas") from None


def _programs(
    specs: tuple[str, ...], encoder: str | None, decoder: str | None, config: str | None
) -> dict[str, dict[str, str]]:
    """The options that paths of programs are, for the codecs that take them."""
    given = {"encoder": encoder, "decoder": decoder, "config": config}
    paths = {key: value for key, value in given.items() if value is not None}
    takes = {"bpg": paths, "hm": paths, "vtm": paths}
    takes["tfci"] = {key: value for key, value in paths.items() if key == "encoder"}
    return {spec: takes[spec.split(":")[0]] for spec in specs if spec.split(":")[0] in takes}


def bench(
    folder: Annotated[Path, typer.Argument(help="Folder of images, or one image.")],
    codecs: Codecs = "jpeg,webp,avif,jxl,hevc,av1,vvc,latens",
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Results (JSON); one that exists is continued.")
    ] = Path("results.json"),
    points: Annotated[
        list[str] | None,
        typer.Option("--points", "-p", help="Settings of a codec, as in jpeg=20,50,80; may be repeated."),
    ] = None,
    metrics: Annotated[
        str, typer.Option("--metrics", help="What to measure, comma-separated.")
    ] = "psnr_rgb,psnr_y,ms_ssim,lpips",
    match: Annotated[
        str,
        typer.Option(
            "--match", help="Rates in bits per pixel at which the report's viewer compares, as in 0.3,0.8."
        ),
    ] = "",
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Times to code each image.")] = 3,
    threads: ThreadsOfCodecs = 1,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=1, help="Images at a time; more than 1 disturbs times.")
    ] = 1,
    time_limit: Annotated[
        float, typer.Option("--time-limit", min=0.1, help="Seconds for one setting of one image.")
    ] = 300.0,
    no_files: Annotated[
        bool, typer.Option("--no-files", help="Don't keep the coded files; the report then has no pictures.")
    ] = False,
    encoder_path: EncoderPath = None,
    decoder_path: DecoderPath = None,
    config: Config = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Measure codecs on a folder of images.

    Every figure is of a real file: written, counted in bytes with all headers, decoded again, and compared with
    the original as 8-bit RGB. Codecs that are not installed are named and skipped; one that crashes or hangs is
    recorded as failed; images that cannot be read are listed. The command can be stopped and repeated: it goes on
    where it was. Exit code 3 if anything failed.

    Examples:

      latens bench photos/ --codecs jpeg,webp,avif,latens -o results.json

      latens bench photos/ -c avif:speed=6,hevc:preset=slow:chroma=420 -p hevc:preset=slow:chroma=420=22,27,32,37

      latens bench photos/ -c mbt2018-mean:weights=checkpoints/ --repeats 1 -j 4

      latens bench photos/ -c vtm --encoder-path EncoderApp --decoder-path DecoderApp --config intra.cfg
    """
    from latens.evaluate import Plan
    from latens.evaluate import bench as run

    specs = tuple(dict.fromkeys(spec.strip() for spec in codecs.split(",") if spec.strip()))
    settings = {}
    for text in points or []:
        spec, equals, numbers = text.rpartition("=")
        if not equals or spec not in specs:
            raise CodecError(f"--points {printable(text)}: expected CODEC=NUMBERS with one of the codecs")
        settings[spec] = _numbers(numbers, "--points")
    if not output.exists():
        check_output(output)
    plan = Plan(
        folder=folder,
        codecs=specs,
        settings=settings,
        options=_programs(specs, encoder_path, decoder_path, config),
        metrics=tuple(part for part in metrics.split(",") if part),
        match=_numbers(match, "--match"),
        repeats=repeats,
        threads=threads,
        jobs=jobs,
        time_limit=time_limit,
        keep_files=not no_files,
    )
    with _Bar(quiet) as bar:
        results = run(plan, output, command=("latens", *sys.argv[1:]), progress=bar.show)
    for spec, reason in results.skipped.items():
        say(f"skipped: {spec}: {reason}", quiet)
    for name, reason in results.unreadable.items():
        say(f"not read: {name}: {reason}", quiet)
    for failure in results.failures:
        where = f"{failure['codec']} {failure['image']} at {failure['setting']:g}"
        say(f"failed: {where}: {failure['reason']}", quiet)
    say(f"{printable(output)}: {len(results.points):,} points", quiet)
    if results.failures or results.unreadable:
        raise typer.Exit(EXIT_PARTLY)


class _Bar:
    """A progress bar, on a terminal."""

    def __init__(self, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            MofNCompleteColumn(), BarColumn(), TimeRemainingColumn(), TextColumn("{task.description}", markup=False),
            console=Console(stderr=True, markup=False, highlight=False), disable=quiet or not on_terminal(),
        )  # fmt: skip
        self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, done: int, total: int, text: str) -> None:
        """As the harness calls it."""
        self._bar.update(self._task, total=total, completed=done, description=printable(text))
