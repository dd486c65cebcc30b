"""All commands. Heavy imports stand inside the functions that need them."""

from __future__ import annotations

import atexit
import io
import json
import logging
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Collection
from contextlib import ExitStack, closing, suppress
from copy import copy
from functools import cache
from math import prod
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from latens import format as ltn
from latens.cli import batch, files, work
from latens.cli.batch import EXIT_ERROR, EXIT_INTERRUPTED, interruption
from latens.cli.messages import reason, say
from latens.cli.options import (
    FilesFrom,
    Force,
    Jobs,
    Json,
    Lines,
    ManifestFile,
    OtherWeights,
    Quiet,
    Ray,
    Recursive,
    SkipExisting,
    Threads,
    WeightsDir,
)
from latens.errors import ImageError, LatensError, ModelError, OutputError, TargetError
from latens.io import printable, remote

if TYPE_CHECKING:
    from latens.zoo import Row

EXIT_TERMINATED = 143

app = typer.Typer(
    name="latens",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Inputs = Annotated[list[str], typer.Argument(help="Files, with -r folders too; '-' is standard input.")]
Sources = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[INPUTS]...",
        help="Files, with -r folders and .zip and .tar archives too; '-' is standard input. Addresses such as "
        "s3://bucket/folder are names, too.",
    ),
]
Output = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        help="File or folder to write, or a .zip or .tar file in place of a folder; beside the input by default. '-' "
        "is standard output.",
    ),
]
MaxPixels = Annotated[
    int, typer.Option("--max-pixels", min=1, help="Refuse images with more pixels than this.")
]
_PIXELS = 1 << 28


def _version(wanted: bool) -> None:
    if wanted:
        import latens

        files.show(f"latens {latens.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show Python tracebacks of errors.")] = False,
) -> None:
    """Learned image compression: photos to small .ltn files and back.

    Results go beside their inputs unless -o says otherwise, and nothing is overwritten without --force. Each command
    explains itself, with examples: latens COMMAND --help.

    Exit codes: 0 done, 2 error, 3 salvaged, 130 interrupted.

    Examples:

      latens encode photo.png

      latens decode photo.ltn

      latens encode --help
    """


_SIZE = re.compile(r"(\d+\.?\d*|\.\d+) ?(?:([kmg])(i?))?b?", re.IGNORECASE | re.ASCII)


def _bytes(text: str) -> float:
    """Number of bytes: ``20000``, ``20k``, ``1.5MB``, ``64KiB``."""
    found = _SIZE.fullmatch(text.strip())
    size = 0.0
    if found is not None:
        number, unit, binary = found.groups()
        size = float(number) * (1024 if binary else 1000) ** " kmg".index((unit or " ").lower())
    if not 1 <= size < 1e15:
        raise typer.BadParameter(f"{text!r}: expected a size such as 50000, 50k, 1.5MB or 64KiB")
    return size


@app.command()
def encode(
    inputs: Sources = None,
    output: Output = None,
    quality: Annotated[
        float | None,
        typer.Option(
            "--quality",
            "-q",
            min=0,
            max=100,
            help="0 (smallest) to 100 (best); 70 by default. About the SSIMULACRA2 score that photographs get.",
        ),
    ] = None,
    target_size: Annotated[
        float | None,
        typer.Option(
            "--target-size",
            parser=_bytes,
            metavar="BYTES",
            help="At most so many bytes, and at most 1 % less; 20k, 1.5M and 64KiB are sizes, too.",
        ),
    ] = None,
    target_bpp: Annotated[
        float | None, typer.Option("--target-bpp", help="The same in bits per pixel.")
    ] = None,
    target_psnr: Annotated[
        float | None, typer.Option("--target-psnr", help="So many dB, within 0.05.")
    ] = None,
    target_ssimulacra2: Annotated[
        float | None,
        typer.Option("--target-ssimulacra2", help="This score (70 is high quality), within 0.3."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Released model, or path of a weights file.")
    ] = None,
    tune: Annotated[
        str | None,
        typer.Option("--tune", help="eye or psnr: the newest released model that is trained for it."),
    ] = None,
    frame: Annotated[
        int | None, typer.Option("--frame", min=0, help="Which picture of an animation, from 0.")
    ] = None,
    effort: Annotated[
        int,
        typer.Option(
            "--effort",
            "-e",
            min=1,
            max=5,
            help="1 (quick) to 5: search for the smallest file, seconds to minutes an image. Decoding stays as fast.",
        ),
    ] = 1,
    lossless: Annotated[
        bool, typer.Option("--lossless", help="Keep every sample. Needs no model; best for drawings.")
    ] = False,
    near_lossless: Annotated[
        int,
        typer.Option("--near-lossless", min=0, max=255, help="The same, each sample off by at most so much."),
    ] = 0,
    content: Annotated[
        str | None,
        typer.Option(
            help="photo: all by a model; drawn: lossless; auto: text and lines stay sharp, and a lossless "
            "file is made where that is not larger, as of screenshots. auto by default, or photo with --model and "
            "for images that are too large to be read whole."
        ),
    ] = None,
    preview: Annotated[
        bool | None,
        typer.Option(
            "--preview/--no-preview",
            help="Whether a file carries a small copy, about 1 % of it, for viewers. By default, those of 8 megapixels "
            "and more do.",
        ),
    ] = None,
    recursive: Recursive = False,
    skip_existing: SkipExisting = False,
    files_from: FilesFrom = None,
    manifest: ManifestFile = None,
    ray: Ray = None,
    jobs: Jobs = None,
    force: Force = False,
    threads: Threads = None,
    max_pixels: MaxPixels = _PIXELS,
    as_json: Lines = False,
    quiet: Quiet = False,
) -> None:
    """Compress images to .ltn files.

    Each file goes beside its image (photo.png to photo.ltn), unless -o names a file or a folder. Transparency, ICC
    profiles, EXIF and XMP are kept. PNG, JPEG, WebP, AVIF, TIFF, GIF, BMP, PPM and JPEG 2000 are read.

    With -r the images of a folder and of all below it go to the same places below -o. A batch can be stopped at any
    time, and goes on with --skip-existing: files are written whole or not at all. Links to folders are not
    followed. Where two images differ only in their suffix, both keep it: a.png.ltn and a.jpg.ltn.

    Examples:

      latens encode photo.png

      latens encode -q 30 *.jpg -o small/

      latens encode photo.png --target-size 50k

      latens encode photo.png --effort 3

      latens encode --lossless screenshot.png

      latens encode -r photos/ -o small/ --skip-existing

      latens encode -r s3://bucket/photos -o s3://bucket/small --manifest small.jsonl --ray
    """
    targets = (target_size, target_bpp, target_psnr, target_ssimulacra2)
    if sum(option is not None for option in (quality, *targets)) > 1:
        raise TargetError(
            "give one of --quality, --target-size, --target-bpp, --target-psnr and --target-ssimulacra2, not several"
        )
    if model is not None and tune is not None:
        raise ImageError("give --model or --tune, not both")
    exact = lossless or near_lossless > 0 or content == "drawn"
    if exact and any(option is not None for option in (quality, *targets, model, tune)):
        raise TargetError(
            "a lossless file has no quality, no target and no model; leave those out, or --lossless, "
            "--near-lossless and --content drawn"
        )
    if content is not None and content not in ("auto", "photo", "drawn"):
        raise ImageError(f"--content {printable(content)}: expected one of auto, photo, drawn")
    # Large pictures go through in strips, unless something drawn is in them, which is looked for in whole pictures.
    by_strips = not exact and effort == 1 and frame is None and content in (None, "photo")
    encoder = work.Encode(
        quality, target_size, target_bpp, target_psnr, target_ssimulacra2, model, tune, effort, exact, near_lossless,
        content or ("photo" if model is not None else "auto"), preview,
        by_strips and all(target is None for target in targets),
        frame, max_pixels, force, files.Inputs(()), False,
    )  # fmt: skip
    _batch(
        encoder, inputs, output, ".ltn", "encode",
        recursive=recursive, suffixes=_IMAGE_SUFFIXES, watched=_OTHER_PICTURES, skip_existing=skip_existing,
        files_from=files_from, manifest=manifest, ray=ray, jobs=jobs, threads=threads,
        as_json=as_json, quiet=quiet, fatal=ModelError,
    )  # fmt: skip


def _batch(
    worker: work.Encode | work.Decode,
    inputs: list[str] | None,
    output: str | None,
    suffix: str,
    command: str,
    *,
    recursive: bool,
    suffixes: Collection[str],
    watched: Collection[str],
    skip_existing: bool,
    files_from: str | None,
    manifest: str | None,
    ray: str | None,
    jobs: int | None,
    threads: int | None,
    as_json: bool,
    quiet: bool,
    fatal: type[LatensError] | tuple[()] = (),
) -> None:
    """Plan a batch and do it, here or on other machines. Raises typer.Exit if anything failed."""
    listed = [] if files_from is None else files.listed(files_from)
    if not inputs and files_from is None:
        raise ImageError(f"name at least one file ('latens {command} --help' shows how)")
    if ray is not None and jobs is not None:
        raise ImageError("give --jobs or --ray, not both: a cluster says how many go at a time")
    if ray is not None and files.STANDARD in (*(inputs or ()), output):
        raise ImageError("standard input and output are of this machine only; name files with --ray")
    if command == "encode":
        _check_suffix(inputs or [], output)
    apart = ray is not None or manifest is not None or skip_existing
    if apart and output is not None and files.is_archive(remote.local(output)):
        raise OutputError(
            f"{printable(output)}: an archive is made in one piece, on one machine; leave --ray, --manifest and "
            "--skip-existing out, or name a folder"
        )
    with ExitStack() as stack:
        record = None
        if manifest is not None:
            from latens.cli.manifest import Manifest

            record = stack.enter_context(closing(Manifest(manifest, command, worker.options())))
        plan = files.plan(
            inputs or [], output, suffix, worker.force,
            recursive=recursive, suffixes=suffixes if recursive else (), watched=watched, skip_existing=skip_existing,
            listed=listed, done=record.done if record else (), begun=record.begun if record else (),
        )  # fmt: skip
        if plan.archive is not None:
            stack.enter_context(plan.archive)
        worker.inputs, worker.lone = plan.inputs, not quiet and len(plan.jobs) == 1
        if isinstance(worker, work.Decode):
            for job in plan.jobs:
                worker.kind_of(job)  # refuses suffixes that it does not know, before any work
        if ray is None:
            at_once, threads = batch.share(len(plan.jobs), jobs, threads)
            work.set_threads(threads)
            do = batch.here(worker, at_once)
        else:
            from latens.cli.cluster import on_ray

            do = on_ray(worker, ray, threads or 1)
        code = batch.run(
            plan, do, verb=f"{command[:-1].capitalize()}ing", coded=f"{command}d",
            quiet=quiet, as_json=as_json, debug=_debug, fatal=fatal, manifest=record,
        )  # fmt: skip
    if code:
        raise typer.Exit(code)


def _check_suffix(inputs: list[str], output: str | None) -> None:
    """Refuse to write a .ltn file under the name of an image: who asks for that wants something else."""
    if output is None or len(inputs) > 1 or os.path.isdir(output):  # noqa: PTH112
        return
    stem, suffix = os.path.splitext(output)  # noqa: PTH122
    if suffix.lower() in _IMAGE_SUFFIXES:
        raise OutputError(
            f"{printable(output)}: 'encode' writes .ltn files; name it {printable(stem)}.ltn, "
            f"from which 'latens decode' makes {printable(suffix)}"
        )


_OTHER_PICTURES = frozenset(
    ".heic .heif .hif .jxl .jxr .wdp .jls .psd .psb .exr .hdr .pam .pfm .qoi .bpg .dpx .svg .tga .ico".split()  # noqa: SIM905
    + ".dng .cr2 .cr3 .crw .nef .nrw .arw .raf .orf .rw2 .pef .srw .x3f .3fr .iiq .rwl".split()  # noqa: SIM905
)
"""Suffixes of pictures that are not read, raw data of cameras included."""


# Asking Pillow for them would load all its plug-ins first.
_IMAGE_SUFFIXES = frozenset(
    ".apng .avif .avifs .bmp .gif .j2c .j2k .jfif .jp2 .jpc .jpe .jpeg .jpf .jpg .jpx .pbm .pfm .pgm .png"  # noqa: SIM905
    " .pnm .ppm .tif .tiff .webp".split()
)
"""Of the files that are taken for images."""


@app.command()
def decode(
    inputs: Sources = None,
    output: Output = None,
    format: Annotated[
        str | None, typer.Option("--format", help="png (default), ppm, tiff, bmp, webp, jpeg, avif.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Weights file, if the file's model is not a released one."),
    ] = None,
    weights_dir: WeightsDir = None,
    salvage: Annotated[
        bool, typer.Option("--salvage", help="Write what can be had of damaged files; exit code 3.")
    ] = False,
    region: Annotated[
        str | None,
        typer.Option(
            "--region", metavar="X,Y,W,H", help="Only this part: left and top, width and height, in pixels."
        ),
    ] = None,
    scale: Annotated[str, typer.Option("--scale", help="1, 1/2, 1/4 or 1/8 of the sides.")] = "1",
    other_weights: OtherWeights = False,
    recursive: Recursive = False,
    skip_existing: SkipExisting = False,
    files_from: FilesFrom = None,
    manifest: ManifestFile = None,
    ray: Ray = None,
    jobs: Jobs = None,
    force: Force = False,
    threads: Threads = None,
    max_pixels: MaxPixels = _PIXELS,
    as_json: Lines = False,
    quiet: Quiet = False,
) -> None:
    """Turn .ltn files back into images.

    Each image goes beside its file (photo.ltn to photo.png), unless -o names a file, whose suffix chooses the format,
    or a folder. A damaged file is an error and nothing is written, unless --salvage is given. Folders are taken as
    by 'latens encode'.

    Examples:

      latens decode photo.ltn

      latens decode photo.ltn -o photo.webp

      latens decode -r small/ -o photos/ --skip-existing

      latens decode map.ltn --region 2000,500,512,512 -o corner.png

      latens decode photo.ltn --scale 1/8 -o small.png
    """
    from latens.codec.picture import divisor
    from latens.io import WRITE_FORMATS

    step = divisor(scale)
    part = None if region is None else _region(region)
    if salvage and (part is not None or step > 1):
        raise ImageError("--salvage is for whole pictures; leave --region and --scale out")
    if format is not None and format not in WRITE_FORMATS:
        raise OutputError(f"--format {printable(format)}: expected one of {', '.join(WRITE_FORMATS)}")
    decoder = work.Decode(
        format, part, scale, step, model, weights_dir, other_weights, salvage,
        max_pixels, force, quiet or as_json, files.Inputs(()), False,
    )  # fmt: skip
    _batch(
        decoder, inputs, output, f".{format or 'png'}", "decode",
        recursive=recursive, suffixes=(".ltn",), watched=(), skip_existing=skip_existing,
        files_from=files_from, manifest=manifest, ray=ray, jobs=jobs, threads=threads,
        as_json=as_json, quiet=quiet,
    )  # fmt: skip


def _region(text: str) -> tuple[int, int, int, int]:
    """Left, top, right and bottom, of left, top, width and height."""
    match = re.fullmatch(r"(-?\d{1,9}),(-?\d{1,9}),(-?\d{1,9}),(-?\d{1,9})", text.replace(" ", ""))
    if match is None:
        raise ImageError(f"--region {printable(text)[:80]}: expected X,Y,W,H, four whole numbers")
    left, top, width, height = map(int, match.groups())
    if width < 1 or height < 1:
        raise ImageError(f"--region {printable(text)}: a width and a height of at least 1 are expected")
    return left, top, left + width, top + height


@app.command()
def verify(
    inputs: Inputs,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Weights file, if the file's model is not a released one."),
    ] = None,
    weights_dir: WeightsDir = None,
    recursive: Recursive = False,
    jobs: Jobs = None,
    threads: Threads = None,
    max_pixels: MaxPixels = _PIXELS,
    as_json: Lines = False,
    quiet: Quiet = False,
) -> None:
    """Decode .ltn files without writing anything, and compare with what was coded.

    Every byte of a file is checked, every symbol, and the picture against the checksum that its encoder took of it.
    The exit code is 2 if any file is damaged.

    Examples:

      latens verify photo.ltn

      latens verify -r archive/ --quiet
    """
    plan = files.plan(inputs, os.devnull, ".png", False, recursive=recursive, suffixes=(".ltn",))
    at_once, threads = batch.share(len(plan.jobs), jobs, threads)
    work.set_threads(threads)
    limits = ltn.Limits(max_pixels=max_pixels)
    codec_for = work.Codecs(model, weights_dir, quiet or as_json)

    def check(job: files.Job) -> batch.Done:
        with files.named(job.source), files.opened_ltn(job, limits, in_parts=False) as file:
            data = files.load(file, limits)
            container = ltn.read(data, limits)
            codec_for(container.header).decode(container)
        header = container.header
        known = (
            "the picture that was coded"
            if container.pixels is not None or header.lossless
            else "whole; it has no checksum of its picture"
        )
        bpp = 8 * len(data) / (header.width * header.height)
        return batch.Done(f"{header.width} x {header.height}, {known}", len(data), len(data), bpp)

    code = batch.run(
        plan, batch.here(check, at_once), verb="Verifying", coded="verified",
        quiet=quiet, as_json=as_json, debug=_debug,
    )  # fmt: skip
    if code:
        raise typer.Exit(code)


@app.command()
def info(
    file: Annotated[str, typer.Argument(help="A .ltn file; '-' is standard input.")],
    drawn_map: Annotated[
        str | None,
        typer.Option(
            "--map", metavar="PNG", help="Write a picture of the drawn blocks; grey is what the model makes."
        ),
    ] = None,
    as_json: Json = False,
    max_pixels: MaxPixels = _PIXELS,
    force: Force = False,
) -> None:
    """Describe a .ltn file.

    Shows its header, its chunks and where the bytes go. Every byte of the container is checked.

    Examples:

      latens info photo.ltn

      latens info page.ltn --map blocks.png
    """
    limits = ltn.Limits(max_pixels=max_pixels)
    with files.named(file):
        data = files.read_ltn(file, limits)
        about = ltn.describe(data, limits)
        container = ltn.read(data, limits)
        header = container.header
        blocks = prod(ltn.tile_grid(header.width, header.height, ltn.GRID))
        tiles = [tile for tile in container.tiles if tile is not None]
        drawn_blocks, drawn_bytes = 0, sum(len(tile.drawn) for tile in tiles)
        if header.lossless:
            drawn_blocks, drawn_bytes = blocks, sum(len(tile.stream) for tile in tiles)
        elif drawn_bytes or drawn_map is not None:
            # It takes NumPy, and a tenth of a second, which files without drawn blocks need not wait for.
            from latens.codec.drawn import survey

            drawn = survey(container)
            drawn_blocks = drawn.count
    if drawn_map is not None:
        from latens.io import atomic_write, check_output, write_image

        if header.lossless:
            raise ImageError(
                f"{files.shown(file)}: --map is for files of a model; of a lossless one, all is drawn"
            )
        check_output(drawn_map, force=force, inputs=[file])
        buffer = io.BytesIO()
        write_image(drawn.picture(), buffer, "png")
        atomic_write(drawn_map, buffer.getvalue(), force=force)
    quality = "100" if header.lossless else _as_given(header.quality, header.model)
    pixels = header.width * header.height
    # What the samples take, each in whole bytes as image files have them.
    ratio = pixels * (header.channels + header.alpha) * -(-header.bit_depth // 8) / about.size
    bpp = 8 * about.size / pixels
    if as_json:
        chunks = [chunk._asdict() for chunk in about.chunks]
        sizes = {
            "quality": float(quality),
            "bpp": bpp,
            "ratio": ratio,
            "size": about.size,
            "streams": about.streams,
            "extras": about.extras,
            "overhead": about.overhead,
            "blocks": blocks,
            "drawn_blocks": drawn_blocks,
            "drawn_bytes": drawn_bytes,
        }
        files.show(json.dumps({"fields": dict(about.fields), "chunks": chunks, **sizes}, indent=1))
        return
    lines = [f"{label:<18} {value}" for label, value in about.fields]
    if not header.lossless:
        lines.append(f"{'Quality':<18} {quality}")
    lines.append(f"{'Ratio':<18} {ratio:,.1f} : 1 of the samples alone, {bpp:.3f} bits per pixel")
    if not header.lossless:
        lines.append(f"{'Drawn blocks':<18} {drawn_blocks} of {blocks}, {drawn_bytes:,} bytes")
    lines.append(
        f"{'Size':<18} {about.size:,} bytes: {about.streams:,} coded, {about.extras:,} metadata, alpha and preview, "
        f"{about.overhead} container"
    )
    lines += [f"  {chunk.offset:>10,}  {chunk.name:<14} {chunk.size:>10,} bytes" for chunk in about.chunks]
    files.show("\n".join(lines))


def _as_given(level: int, model: str) -> str:
    """The quality that a user gave, from the 16 bits of a header: the shortest number that leads to them."""
    from latens.runtime.scale import LINEAR
    from latens.zoo.scales import scale_of

    top, scale = 65535, scale_of(model) or LINEAR
    for digits in range(5):
        quality = round(scale.quality(level / top), digits)
        if round(scale.level(quality) * top) == level:
            break
    return f"{quality:.{digits}f}"


@app.command()
def models(
    published: Annotated[
        bool, typer.Option("--published", help="The published architectures that latens.zoo offers.")
    ] = False,
    exact: Annotated[
        str | None,
        typer.Option(
            "--exact",
            metavar="MODEL",
            help="The integer networks of a model or weights file, with their bounds.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the models that make .ltn files.

    With --published the architectures of the literature that latens.zoo has, with their sizes and what they cost. With
    --exact the integer networks that choose the tables of one model: for each layer the largest sum that any
    input can lead to, which has to stay below 2^53 for decoding to be the same everywhere.

    Examples:

      latens models

      latens models --published

      latens models --exact latens-psnr-1
    """
    from dataclasses import asdict

    if exact is not None:
        files.show(_bounds(exact, as_json))
        return

    from latens.zoo import cards, listing

    if as_json:
        released = (*cards(), *cards("video"))
        rows = (
            [asdict(row) for row in listing()]
            if published
            else [asdict(card) | {"url": card.url} for card in released]
        )
        files.show(json.dumps(rows, indent=1))
        return
    if published:
        files.show(_table(listing()))
        return
    lines = []
    for card in (*cards(), *cards("video")):
        low, high = card.quality_range
        encoder, decoder = card.mac_per_pixel
        lines.append(card.id)
        for label, text in (
            ("summary", card.summary),
            ("trained for", {"eye": "the eye", "psnr": "PSNR"}[card.tune]),
            ("range", f"{low:g} to {high:g} bits per pixel ({card.range_of})"),
            ("parameters", f"{card.parameters / 1e6:.1f} M"),
            ("MAC per pixel", f"{encoder:,} encoding, {decoder:,} decoding"),
            ("training", card.training),
            ("papers", "; ".join(card.papers)),
            ("licence", card.licence),
            ("SHA-256", card.sha256),
            ("address", card.url + (" (in this package)" if card.path.is_file() else "")),
        ):
            lines.append(f"  {label:<14} {text}")
    files.show("\n".join(lines))


def _bounds(model: str, as_json: bool) -> str:
    import math

    from latens.zoo import load

    loaded = load(model)
    bounds = loaded.bounds()
    if as_json:
        return json.dumps({"entropy_id": loaded.entropy_id, "bounds": bounds}, indent=1)
    lines = [f"entropy id {loaded.entropy_id}"]
    for name, layers in bounds.items():
        lines += [f"  {name:<24} layer {i}: sums below 2^{math.log2(b):.2f}" for i, b in enumerate(layers)]
    highest = max((b for layers in bounds.values() for b in layers), default=0)
    if highest:
        lines.append(
            f"highest: 2^{math.log2(highest):.2f} of 2^53; exact in any order, on any device with float64"
        )
    else:
        lines.append("no networks: each channel has a table of its own")
    return "\n".join(lines)


def _table(rows: list[Row]) -> str:
    lines = [
        f"{'model':<30} {'quality':<9} {'metrics':<13} {'parameters':>11} {'MAC/pixel enc':>14} {'dec':>9}"
    ]
    for row in rows:
        quality = f"{row.qualities[0]}-{row.qualities[-1]}" if row.qualities else "-"
        cost = ["-", "-", "-"]
        if row.parameters is not None and row.mac_per_pixel is not None:
            cost = [f"{row.parameters:,}", *(f"{mac:,}" for mac in row.mac_per_pixel)]
        metrics = ", ".join(row.metrics) or "-"
        lines.append(f"{row.name:<30} {quality:<9} {metrics:<13} {cost[0]:>11} {cost[1]:>14} {cost[2]:>9}")
    return "\n".join(lines)


_OWN = ("encode", "decode", "info", "models")


@cache
def _add_others() -> None:
    """Add the commands that are defined elsewhere; they and their options take time that most calls need not spend."""
    from latens.cli import evaluation, inspection, training, video

    app.command()(training.train)
    app.command()(training.update_model)
    app.command()(evaluation.bench)
    app.command()(evaluation.report)
    app.command("eval")(evaluation.evaluate)
    app.command()(evaluation.plot)
    app.command()(evaluation.find)
    app.command("fit-quality")(evaluation.fit_quality)
    app.command()(inspection.inspect)
    app.add_typer(video.app)


_debug = False


def main() -> None:
    """Entry point of the ``latens`` command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # What decoders tell about damaged files is for programmers; the error that follows says it to users.
    for library in ("PIL", "tifffile"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _terminate)
    if "_LATENS_COMPLETE" in os.environ:
        _command()(prog_name="latens")  # a shell asks for completions; it does not return
    code = run(sys.argv[1:])
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        # What could not be written must not be tried again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = code or EXIT_ERROR
    _leave(code)


def _leave(code: int) -> NoReturn:
    """End the process.

    To take the interpreter apart, object by object, takes a tenth of the time of a photograph. Where everything is
    done and nothing runs any more, the system does it faster. PyTorch has threads and processes of its own to end.
    """
    if "torch" in sys.modules or threading.active_count() > 1:
        sys.exit(code)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)


def run(arguments: list[str]) -> int:
    """Run a command; every error becomes a line on standard error and an exit code.

    Args:
        arguments: without the program's name. ``--debug`` is accepted anywhere before ``--``.

    Returns:
        0, or 2 after an error, 3 if files were only salvaged, 130 after Ctrl-C, 1 if nobody reads the output.
    """
    global _debug
    end = arguments.index("--") if "--" in arguments else len(arguments)
    _debug = "--debug" in arguments[:end] or os.environ.get("LATENS_DEBUG") == "1"
    arguments = _addressed([a for a in arguments[:end] if a != "--debug"]) + arguments[end:]
    try:
        command = _command(arguments[0] if arguments else None)
        with command.make_context("latens", arguments or ["--help"]) as context:
            command.invoke(context)
    except typer.Exit as end_of_command:
        return end_of_command.exit_code
    except KeyboardInterrupt:
        return _stopped()
    except BrokenPipeError:
        return 1  # the reader has gone, as in `| head`
    except Exception as error:
        # An import that Ctrl-C breaks off ends in all kinds of errors.
        if interruption.came:
            return _stopped()
        _complain(error)
        return EXIT_ERROR
    return 0


_ADDRESS = re.compile(r"auto|local|ray://.*|(?:[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\]):\d{1,5}")


def _addressed(arguments: list[str]) -> list[str]:
    """The same with an address after each ``--ray``, which may be left out."""
    found = []
    for number, argument in enumerate(arguments):
        found.append(argument)
        if argument == "--ray" and not any(map(_ADDRESS.fullmatch, arguments[number + 1 : number + 2])):
            found.append("auto")
    return found


@cache
def _command(wanted: str | None = None) -> Any:
    """The commands: all, or only the one that is ``wanted`` if it is defined here."""
    if wanted not in _OWN:
        _add_others()
        return typer.main.get_command(app)
    alone = copy(app)
    alone.registered_commands = [
        c for c in app.registered_commands if c.callback is not None and c.callback.__name__ == wanted
    ]
    alone.registered_groups = []
    return typer.main.get_command(alone)


def _interrupt(number: int, frame: FrameType | None) -> None:
    interruption.came = True
    raise KeyboardInterrupt


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(EXIT_TERMINATED)


def _stopped() -> int:
    say("latens: interrupted; files finished before are complete")
    return EXIT_INTERRUPTED


def _complain(error: Exception) -> None:
    if _debug:
        with suppress(OSError):
            traceback.print_exception(error)
    text = reason(error)
    if not isinstance(error, LatensError) and hasattr(error, "format_message"):
        # wrong usage; the class moved between releases of typer
        path = getattr(getattr(error, "ctx", None), "command_path", "latens")
        text = f"{printable(error.format_message())} (see '{path} --help')"
    say(f"latens: error: {text}")
