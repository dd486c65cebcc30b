"""All commands. Heavy imports stand inside the functions that need them."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latens.cli import files, training
from latens.errors import ImageError, LatensError
from latens.io import printable

if TYPE_CHECKING:
    from latens.codec import ImageCodec

EXIT_ERROR = 2
EXIT_SALVAGED = 3
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="latens",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Inputs = Annotated[list[str], typer.Argument(help="Files to read; '-' is standard input.")]
Output = Annotated[
    str | None, typer.Option("--output", "-o", help="File or folder to write; '-' is standard output.")
]
Force = Annotated[bool, typer.Option("--force", "-f", help="Replace existing files.")]
Fast = Annotated[bool, typer.Option("--fast", help="bfloat16 in the image networks: faster on recent CPUs.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads; all cores by default.")]
MaxPixels = Annotated[
    int, typer.Option("--max-pixels", min=1, help="Refuse images with more pixels than this.")
]
_PIXELS = 1 << 28


def _version(wanted: bool) -> None:
    if wanted:
        import latens

        print(f"latens {latens.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show Python tracebacks of errors.")] = False,
) -> None:
    """Learned image compression: photos to small .ltn files and back."""


def _threads(threads: int | None) -> None:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def _say(text: str, quiet: bool = False) -> None:
    if not quiet:
        print(text, file=sys.stderr)


def _run(jobs: list[files.Job], verb: str, quiet: bool, work: Callable[[files.Job], int]) -> None:
    """Do all jobs; one that fails is reported and the rest goes on. Exits with the worst outcome."""
    worst = 0
    for job in files.with_progress(jobs, verb, quiet):
        try:
            worst = max(worst, work(job))
        except LatensError as error:
            if len(jobs) == 1:
                raise
            _complain(error)
            worst = max(worst, EXIT_ERROR)
    if worst:
        raise typer.Exit(worst)


@app.command()
def encode(
    inputs: Inputs,
    output: Output = None,
    quality: Annotated[
        float, typer.Option("--quality", "-q", min=0, max=100, help="0 (smallest) to 100 (best).")
    ] = 50.0,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Released model, or path of a weights file.")
    ] = None,
    frame: Annotated[
        int | None, typer.Option("--frame", min=0, help="Which picture of an animation, from 0.")
    ] = None,
    force: Force = False,
    fast: Fast = False,
    threads: Threads = None,
    max_pixels: MaxPixels = _PIXELS,
    quiet: Quiet = False,
) -> None:
    """Compress images to .ltn files.

    Examples:

      latens encode photo.png

      latens encode -q 30 *.jpg -o small/
    """
    jobs = files.plan(inputs, output, ".ltn", force)
    _threads(threads)
    from latens.io import read_image

    codec: ImageCodec | None = None

    def work(job: files.Job) -> int:
        nonlocal codec
        image = read_image(files.open_source(job), frame=frame, max_pixels=max_pixels)
        if codec is None:
            codec = _codec(model, fast)
        data = codec.encode(image, quality)
        files.write(job, data, force, inputs)
        for note in image.notes:
            _say(f"{job.source_name}: {note}", quiet)
        height, width = image.pixels.shape[:2]
        bpp = 8 * len(data) / (width * height)
        _say(f"{job.source_name} -> {job.target_name}: {len(data):,} bytes, {bpp:.3f} bits per pixel", quiet)
        return 0

    _run(jobs, "Encoding", quiet, work)


def _codec(model: str | None, fast: bool) -> ImageCodec:
    from latens.codec import ImageCodec
    from latens.zoo import DEFAULT_MODEL

    return ImageCodec(model or DEFAULT_MODEL, fast=fast)


@app.command()
def decode(
    inputs: Inputs,
    output: Output = None,
    format: Annotated[
        str | None, typer.Option("--format", help="png (default), ppm, tiff, bmp, webp, jpeg, avif.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Weights file, if the file's model is not a released one."),
    ] = None,
    salvage: Annotated[
        bool, typer.Option("--salvage", help="Write what can be had of damaged files; exit code 3.")
    ] = False,
    other_weights: Annotated[
        bool, typer.Option("--other-weights", help="Accept weights other than the file was made with.")
    ] = False,
    force: Force = False,
    fast: Fast = False,
    threads: Threads = None,
    max_pixels: MaxPixels = _PIXELS,
    quiet: Quiet = False,
) -> None:
    """Turn .ltn files back into images.

    Examples:

      latens decode photo.ltn

      latens decode photo.ltn -o photo.webp
    """
    jobs = files.plan(inputs, output, f".{format or 'png'}", force)
    _threads(threads)
    from io import BytesIO

    from latens import format as ltn
    from latens.io import write_format, write_image

    limits = ltn.Limits(max_pixels=max_pixels)
    codecs: dict[str, ImageCodec] = {}

    def work(job: files.Job) -> int:
        try:
            container = ltn.read(_read(job, limits), limits, on_error="conceal" if salvage else "raise")
            name = model or container.header.model
            if name not in codecs:
                codecs[name] = _codec(name, fast)
            image, problems = codecs[name].decode(
                container, on_error="conceal" if salvage else "raise", other_weights=other_weights
            )
        except LatensError as error:
            raise type(error)(f"{job.source_name}: {error}") from error
        buffer = BytesIO()
        kind = format or ("png" if job.target == files.STANDARD else write_format(job.target))
        notes = write_image(image, buffer, kind)
        files.write(job, buffer.getvalue(), force, inputs)
        for line in (*notes, *problems):
            _say(f"{job.source_name}: {line}", quiet)
        _say(f"{job.source_name} -> {job.target_name}: {header_size(container.header)}", quiet)
        return EXIT_SALVAGED if problems else 0

    def header_size(header: ltn.Header) -> str:
        return f"{header.width} x {header.height}"

    _run(jobs, "Decoding", quiet, work)


def _read(job: files.Job, limits: Any) -> bytes:
    from latens import format as ltn

    if job.source == files.STANDARD:
        return ltn.load(sys.stdin.buffer, limits)
    try:
        with Path(job.source).open("rb") as file:
            return ltn.load(file, limits)
    except OSError as error:
        raise ImageError(f"cannot be read ({error.strerror})") from error


@app.command()
def info(
    file: Annotated[str, typer.Argument(help="A .ltn file; '-' is standard input.")],
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
    max_pixels: MaxPixels = _PIXELS,
) -> None:
    """Describe a .ltn file: its header, its chunks and where the bytes go. Every byte is checked.

    Example:

      latens info photo.ltn
    """
    from latens import format as ltn

    job = files.Job(file, files.STANDARD)
    limits = ltn.Limits(max_pixels=max_pixels)
    try:
        about = ltn.describe(_read(job, limits), limits)
    except LatensError as error:
        raise type(error)(f"{job.source_name}: {error}") from error
    if as_json:
        chunks = [chunk._asdict() for chunk in about.chunks]
        sizes = {
            "size": about.size,
            "streams": about.streams,
            "extras": about.extras,
            "overhead": about.overhead,
        }
        print(json.dumps({"fields": dict(about.fields), "chunks": chunks, **sizes}, indent=1))
        return
    for label, value in about.fields:
        print(f"{label:<18} {value}")
    print(f"{'Size':<18} {about.size:,} bytes: {about.streams:,} coded, {about.extras:,} metadata and alpha, "
          f"{about.overhead} container")  # fmt: skip
    for chunk in about.chunks:
        print(f"  {chunk.offset:>10,}  {chunk.name:<14} {chunk.size:>10,} bytes")


@app.command()
def models(as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False) -> None:
    """List the models of this release.

    Example:

      latens models
    """
    from dataclasses import asdict

    from latens.zoo import cards

    if as_json:
        print(json.dumps([asdict(card) for card in cards()], indent=1))
        return
    for card in cards():
        low, high = card.quality_range
        encoder, decoder = card.mac_per_pixel
        print(card.id)
        for label, text in (
            ("summary", card.summary),
            ("range", f"{low:g} to {high:g} bits per pixel (Kodak)"),
            ("parameters", f"{card.parameters / 1e6:.1f} M"),
            ("MAC per pixel", f"{encoder:,} encoding, {decoder:,} decoding"),
            ("training", card.training),
            ("papers", "; ".join(card.papers)),
            ("licence", card.licence),
            ("SHA-256", card.sha256),
        ):
            print(f"  {label:<14} {text}")


app.command()(training.train)
app.command()(training.update_model)


def main() -> None:
    """Entry point: runs a command and turns every error into a line and an exit code."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments or os.environ.get("LATENS_DEBUG") == "1"
    # Accepted anywhere, not only before the command.
    arguments = [a for i, a in enumerate(arguments) if a != "--debug" or "--" in arguments[:i]]
    try:
        app(arguments, prog_name="latens")
    except KeyboardInterrupt:
        _say("latens: interrupted; files finished before are complete")
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader has gone, as in `| head`. Python must not try to flush what is left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (LatensError, MemoryError, OSError, RuntimeError) as error:
        if debug:
            traceback.print_exc()
        _complain(error)
        sys.exit(EXIT_ERROR)


def _complain(error: BaseException) -> None:
    if isinstance(error, MemoryError):
        text = "not enough memory"
    elif isinstance(error, LatensError):
        text = str(error)
    else:
        what = f"{type(error).__name__}: {printable(str(error))}"
        text = f"unexpected error, please report it ({what}); --debug shows more"
    _say(f"latens: error: {text}")
