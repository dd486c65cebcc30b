"""``latens video``: videos to .ltn files and back."""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, cast

import typer

from latens import format as ltn
from latens.cli import files
from latens.cli.messages import on_terminal, say
from latens.cli.options import Force, Json, OtherWeights, Quiet, Threads, WeightsDir
from latens.cli.weights import announce
from latens.errors import FormatError, ImageError, ModelError, OutputError, TargetError, VideoError
from latens.io import NOT_KEPT, TemporaryOutput, check_output, printable

if TYPE_CHECKING:
    from latens.codec.structure import Structure
    from latens.codec.video import VideoCodec
    from latens.evaluate.video import VideoResult
    from latens.io import RawVideo, SoundFile, VideoFrame, VideoSink, VideoSource

app = typer.Typer(
    name="video",
    help="Compress videos to .ltn files and back.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Clip = Annotated[
    str, typer.Argument(help="Video file, folder of pictures or frame_%04d.png; '-' is standard input.")
]
Coded = Annotated[str, typer.Argument(help="A .ltn file; '-' is standard input.")]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="Released model, weights file, or checkpoint of CompressAI; with -q, ssf2020 (published weights).",
    ),
]
Quality = Annotated[
    float | None,
    typer.Option(
        "--quality", "-q", min=0, max=100, help="0 (smallest) to 100, 50 by default; of ssf2020: 1 to 9."
    ),
]
Gop = Annotated[
    int, typer.Option("--gop", min=1, help="Every so many frames, or sooner, one is coded alone.")
]
BFrames = Annotated[
    int | None,
    typer.Option(
        "--bframes",
        help="The most B frames between two others: 0, 1, 3 or 7; as the preset says.",
    ),
]
SceneCuts = Annotated[
    bool,
    typer.Option("--scene-cuts/--no-scene-cuts", help="Whether a new scene begins with a frame coded alone."),
]
Preset = Annotated[str, typer.Option("--preset", help="How long to search: fast, medium or slow.")]
Content = Annotated[
    str,
    typer.Option(
        "--content", help="auto: text and lines on a screen are kept as they are; photo: all by the model."
    ),
]
Frames = Annotated[int | None, typer.Option("--frames", min=1, help="Only so many, from the start.")]
RawSize = Annotated[
    str | None, typer.Option("--raw", help="The input is bare planes of this size, as 416x240.")
]
RawRate = Annotated[
    str, typer.Option("--raw-fps", help="Frames per second of bare planes or pictures, as 25 or 30000/1001.")
]
RawFormat = Annotated[
    str, typer.Option("--raw-format", help="Of bare planes: yuv420p, yuv422p, yuv444p; 10le or 12le behind.")
]
FlowUnit = Annotated[
    str | None, typer.Option("--flow-unit", help="Of a checkpoint: corrected (default), relative or pixels.")
]
Audio = Annotated[
    str | None, typer.Option("--audio", help="'copy' keeps the sound as it is; without it, it is left out.")
]
MaxPixels = Annotated[
    int, typer.Option("--max-pixels", min=1, help="Refuse frames with more pixels than this.")
]
_PIXELS = 1 << 28
_BENCH_QUALITIES = (10.0, 30.0, 50.0, 70.0)


@app.command()
def encode(
    clip: Clip,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="File to write; '-' is standard output.")
    ] = None,
    model: Model = None,
    quality: Quality = None,
    target_bitrate: Annotated[
        float | None,
        typer.Option(
            "--target-bitrate",
            metavar="KBIT/S",
            help="About so many kbit/s, in two passes; the whole file, sound and all.",
        ),
    ] = None,
    gop: Gop = 12,
    bframes: BFrames = None,
    preset: Preset = "medium",
    scene_cuts: SceneCuts = True,
    content: Content = "auto",
    frames: Frames = None,
    raw: RawSize = None,
    raw_fps: RawRate = "25",
    raw_format: RawFormat = "yuv420p",
    flow_unit: FlowUnit = None,
    audio: Audio = None,
    force: Force = False,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Compress a video to a .ltn file.

    Frames are turned as the file wants them shown. What is not kept is named. The file can be read while it is
    written to standard output.

    Examples:

      latens video encode clip.mp4 -o clip.ltn -q 40

      latens video encode clip.mp4 -o clip.ltn --model weights.safetensors --gop 12

      latens video encode clip.mp4 -o clip.ltn --audio copy

      latens video encode clip.mp4 -o clip.ltn --target-bitrate 800

      latens video encode clip.yuv --raw 416x240 --raw-fps 50 -m ssf2020 -q 3 -o clip.ltn
    """
    with_sound = _with_sound(audio)
    layout = _layout(raw, raw_fps, raw_format)
    structure = _structure(gop, bframes, preset, scene_cuts)
    if target_bitrate is not None:
        _check_bitrate(target_bitrate, quality, clip)
    target = _target(clip, output, ".ltn", force)
    codec = _codec(model, quality, flow_unit, threads)
    from latens.io import VideoSource

    with ExitStack() as stack:
        stack.enter_context(files.named(clip))

        def opened() -> tuple[VideoSource, Iterator[VideoFrame], int | None]:
            source = stack.enter_context(VideoSource(clip, layout, sound=with_sound, rate=_rate(raw_fps)))
            given = source.frames() if frames is None else _first(source.frames(), frames)
            return source, given, frames if frames is not None else source.info.frames

        known = budget = None
        if target_bitrate is not None:
            from latens.codec.rate import first_pass

            source, given, total = opened()
            with _Progress("Measuring", total, quiet) as progress:
                known = first_pass(
                    codec, source.info, given, structure, source.sound, content, progress.advance
                )
            budget = known.budget(target_bitrate)
        source, given, total = opened()
        with (
            _written(target, clip, force, whole=known is not None) as file,
            _Progress("Encoding", total, quiet) as progress,
        ):
            count = 0
            counted = _Counted(file)
            coded = codec.encode(
                source.info,
                given,
                cast(BinaryIO, counted),
                structure=structure,
                quality=quality if codec.qualities else None,
                sound=source.sound,
                budget=budget,
                content=content,
            )
            for _ in coded:
                count += 1
                if target == files.STANDARD:
                    file.flush()
                progress.advance()
            if known is not None and budget is not None and target_bitrate is not None:
                known.check(target_bitrate, counted.bytes, budget.quality)
    _say_notes(files.shown(clip), source, quiet)
    size = counted.bytes
    bpp = 8 * size / (count * source.info.width * source.info.height)
    rate = "" if known is None else f"{8e-3 * size / known.seconds:.1f} kbit/s, "
    say(
        f"{files.shown(clip)} -> {_shown(target)}: {count} frames, {size:,} bytes, {bpp:.4f} bits per pixel, "
        f"{rate}{progress.rate:.1f} frames per second",
        quiet,
    )


@app.command()
def decode(
    file: Coded,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help=".y4m, .mkv, .mp4, .mov, .yuv, a folder/ of PNGs, frame_%04d.png, or '-' (y4m).",
        ),
    ] = None,
    model: Model = None,
    weights_dir: WeightsDir = None,
    quality: Quality = None,
    start: Annotated[
        float | None, typer.Option("--start", min=0, help="From the key frame at or before this second.")
    ] = None,
    frames: Frames = None,
    salvage: Annotated[
        bool, typer.Option("--salvage", help="Write what can be had of a damaged file; exit code 3.")
    ] = False,
    follow: Annotated[
        float | None,
        typer.Option(
            "--follow", min=0, help="Read on while the file grows; give up after so many idle seconds."
        ),
    ] = None,
    other_weights: OtherWeights = False,
    flow_unit: FlowUnit = None,
    audio: Audio = None,
    force: Force = False,
    threads: Threads = None,
    max_pixels: MaxPixels = _PIXELS,
    quiet: Quiet = False,
) -> None:
    """Turn a .ltn video back into frames.

    Examples:

      latens video decode clip.ltn -o clip.mkv

      latens video decode clip.ltn -o clip.mp4 --audio copy

      latens video decode clip.ltn -o - -m weights.safetensors | ffplay -
    """
    with_sound = _with_sound(audio)
    if with_sound and follow is not None:
        raise VideoError("--audio copy reads a file twice; it does not go with --follow")
    target = _target(file, output, ".y4m", force)
    limits = ltn.Limits(max_pixels=max_pixels)
    with ExitStack() as stack:
        stream = stack.enter_context(_source(file))
        stack.enter_context(files.named(file))
        wait = None if follow is None else _patience(follow)
        sound = None
        if with_sound:
            stream = _seekable(stream, stack)
            part = start is not None or frames is not None
            sound = _kept_sound(stream, limits, salvage, part, stack)
        reader = ltn.VideoReader(stream, limits, on_error="conceal" if salvage else "raise", wait=wait)
        codec = _codec(model, quality, flow_unit, threads, reader.header.model, weights_dir, quiet)
        if start is not None:
            if not stream.seekable():
                raise FormatError("--start needs a file that can be seeked in, not a pipe")
            reader.seek(start)
        count = _decode_to(codec, reader, target, file, frames, salvage, other_weights, force, quiet, sound)
    for problem in reader.problems:
        say(f"{files.shown(file)}: {problem}", quiet)
    header = reader.header
    say(
        f"{files.shown(file)} -> {_shown(target)}: {count[0]} frames of {header.width} x {header.height}, "
        f"{count[1]:.1f} frames per second",
        quiet,
    )
    if reader.problems:
        raise typer.Exit(files.EXIT_SALVAGED)


def _decode_to(
    codec: VideoCodec,
    reader: ltn.VideoReader,
    target: str,
    source: str,
    frames: int | None,
    salvage: bool,
    other_weights: bool,
    force: bool,
    quiet: bool,
    sound: SoundFile | None,
) -> tuple[int, float]:
    from latens.codec.video import info_of
    from latens.io import VideoSink

    decoded = codec.decode(reader, on_error="conceal" if salvage else "raise", other_weights=other_weights)
    total = frames
    if total is None and reader.index is not None:
        total = reader.index.frames
    count = 0
    inputs = [] if source == files.STANDARD else [source]
    info = info_of(reader.header, reader.extras)
    with _Progress("Decoding", total, quiet) as progress:
        with VideoSink(target, info, force=force, inputs=inputs, sound=sound) as sink:
            for found in decoded if frames is None else _first(decoded, frames):
                sink.add(found.frame, found.rgb8 if info.bit_depth == 8 else found.rgb16)
                count += 1
                progress.advance()
        if sound is None and reader.sound_start is not None:
            sink.not_kept.append("sound (--audio copy gives it back)")
        _say_notes(_shown(target), sink, quiet)
    return count, progress.rate


@app.command()
def info(file: Coded, as_json: Json = False, max_pixels: MaxPixels = _PIXELS) -> None:
    """Describe a .ltn video. Every byte of the container is checked.

    Example:

      latens video info clip.ltn
    """
    with _source(file) as stream, files.named(file):
        reader = ltn.VideoReader(stream, ltn.Limits(max_pixels=max_pixels))
        sizes: dict[bool, list[int]] = {True: [], False: []}
        for frame in reader.frames():
            sizes[frame.key].append(frame.size)
    index = reader.index
    if index is None:  # pragma: no cover (a sound file has one)
        raise FormatError("the file has no index")
    header = reader.header
    seconds = float(index.end * Fraction(*header.time_base))
    total = sum(map(sum, sizes.values()))
    size = reader.position
    described = [*header.describe(), *reader.extras.describe()]
    if reader.sound_start is not None:
        described.append(("Sound", "yes"))
    if as_json:
        about = {
            "fields": dict(described),
            "frames": index.frames,
            "seconds": seconds,
            "keyframes": [key._asdict() for key in index.keys],
            "size": size,
            "streams": total,
            "overhead": size - total,
            "kbit_per_second": 8e-3 * size / seconds,
        }
        files.show(json.dumps(about, indent=1))
        return
    lines = [f"{label:<18} {value}" for label, value in described]
    lines.append(f"{'Duration':<18} {seconds:.3f} s, {index.frames:,} frames")
    for key, name in ((True, "Key frames"), (False, "Other frames")):
        found = sizes[key]
        mean = f", {sum(found) / len(found):,.0f} bytes each" if found else ""
        lines.append(f"{name:<18} {len(found):,}{mean}")
    lines.append(
        f"{'Size':<18} {size:,} bytes: {total:,} coded, {size - total:,} container; {8e-3 * size / seconds:,.1f} kbit/s"
    )
    files.show("\n".join(lines))


@app.command("eval")
def evaluate(
    clips: Annotated[list[str], typer.Argument(help="Video files.")],
    model: Model = None,
    quality: Quality = None,
    gop: Gop = 12,
    bframes: BFrames = None,
    preset: Preset = "medium",
    frames: Frames = None,
    raw: RawSize = None,
    raw_fps: RawRate = "25",
    raw_format: RawFormat = "yuv420p",
    flow_unit: FlowUnit = None,
    threads: Threads = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Code clips into real files, decode them, and compare.

    Example:

      latens video eval clip.mkv --gop 12 --frames 96
    """
    layout = _layout(raw, raw_fps, raw_format)
    codec = _codec(model, quality, flow_unit, threads)
    structure = _structure(gop, bframes, preset, False)
    qualities = [quality] if codec.qualities else [None]
    _evaluate(clips, codec, qualities, (), structure, frames, layout, as_json, quiet)


@app.command()
def bench(
    clips: Annotated[list[str], typer.Argument(help="Video files.")],
    codecs: Annotated[
        str,
        typer.Option(
            "--codecs", help="Of x264, x264-slow, x265, x265-slow, svt-av1 and vvenc, commas between."
        ),
    ] = "x264,x264-slow,x265,x265-slow,svt-av1,vvenc",
    model: Model = None,
    quality: Quality = None,
    gop: Gop = 12,
    bframes: BFrames = None,
    preset: Preset = "medium",
    frames: Frames = None,
    raw: RawSize = None,
    raw_fps: RawRate = "25",
    raw_format: RawFormat = "yuv420p",
    flow_unit: FlowUnit = None,
    threads: Threads = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare a model with codecs of FFmpeg: same frames, key frames as often, same measures.

    Each of them runs at four qualities, and so does a model that has all, unless -q says which one.

    Example:

      latens video bench clip.mkv --frames 96
    """
    from latens.evaluate.video import require_codecs

    names = [name for name in codecs.split(",") if name]
    require_codecs(names)
    layout = _layout(raw, raw_fps, raw_format)
    codec = _codec(model, quality, flow_unit, threads)
    qualities: tuple[float | None, ...] = (None,)
    if codec.qualities:
        qualities = _BENCH_QUALITIES if quality is None else (quality,)
    structure = _structure(gop, bframes, preset, False)
    _evaluate(clips, codec, qualities, names, structure, frames, layout, as_json, quiet)


def _evaluate(
    clips: list[str],
    codec: VideoCodec,
    qualities: Sequence[float | None],
    names: list[str] | tuple[()],
    structure: Structure,
    frames: int | None,
    layout: RawVideo | None,
    as_json: bool,
    quiet: bool,
) -> None:
    from latens.evaluate.video import evaluate_ffmpeg, evaluate_model

    found: list[dict[str, Any]] = []

    def report(clip: str, result: VideoResult) -> None:
        if not found and not as_json:
            files.show(
                f"{'clip':<24} {'codec':<16} {'q':>3} {'frames':>6} {'bytes':>11} {'bpp':>8} {'kbit/s':>9} {'Y dB':>6} "
                f"{'YUV dB':>6} {'MS-SSIM':>8} {'VMAF':>6} {'XPSNR':>6} {'enc/s':>7} {'dec/s':>7}"
            )
        found.append({"clip": clip, "gop": structure.gop, **result.as_dict()})
        if not as_json:
            structural = "-" if result.ms_ssim is None else f"{result.ms_ssim:.5f}"
            seen = " ".join(f"{'-':>6}" if x is None else f"{x:>6.2f}" for x in (result.vmaf, result.xpsnr))
            setting = "-" if result.quality is None else f"{result.quality:g}"
            files.show(
                f"{printable(Path(clip).name)[:24]:<24} {result.codec[:16]:<16} {setting:>3} {result.frames:>6} "
                f"{result.bytes:>11,} {result.bits_per_pixel:>8.4f} {result.kbit_per_second:>9.1f} "
                f"{result.psnr_y:>6.2f} {result.psnr_yuv:>6.2f} {structural:>8} {seen} {result.encode_fps:>7.1f} "
                f"{result.decode_fps:>7.1f}"
            )

    for clip in clips:
        with files.named(clip):
            if clip == files.STANDARD:
                raise VideoError("has to be read more than once; give a file")
            for setting in qualities:
                total = None if frames is None else 2 * frames
                with _Progress("Coding", total, quiet) as progress:
                    result = evaluate_model(
                        codec,
                        clip,
                        structure=structure,
                        frames=frames,
                        raw=layout,
                        setting=setting,
                        progress=progress.advance,
                    )
                report(clip, result)
            for result in (
                evaluate_ffmpeg(names, clip, gop=structure.gop, frames=frames, raw=layout) if names else ()
            ):
                report(clip, result)
            if not as_json:
                _show_differences([row for row in found if row["clip"] == clip])
    if as_json:
        files.show(json.dumps(found, indent=1))


def _show_differences(rows: list[dict[str, Any]]) -> None:
    """The rate of the first codec at equal quality, against that of each other one."""
    from latens.errors import CurveError
    from latens.metrics import bd_rate

    measures = {"psnr_y": "Y dB", "psnr_yuv": "YUV dB", "vmaf": "VMAF", "xpsnr": "XPSNR"}
    names = list(dict.fromkeys(row["codec"] for row in rows))
    curves = {name: [row for row in rows if row["codec"] == name] for name in names}
    for other in names[1:]:
        cells = []
        for measure, label in measures.items():
            values = [[row[measure] for row in curves[name]] for name in (other, names[0])]
            if any(value is None for both in values for value in both):
                cells.append(f"{label} - (FFmpeg at hand does not measure it)")
                continue
            rates = [[row["bytes"] for row in curves[name]] for name in (other, names[0])]
            try:
                cells.append(f"{label} {bd_rate(rates[0], values[0], rates[1], values[1]):+.1f} %")
            except CurveError as error:
                cells.append(f"{label} - ({error})")
        files.show(f"Rate of {names[0]} at the quality of {other}: {', '.join(cells)}")


@app.command()
def freeze(
    checkpoint: Annotated[str, typer.Argument(help="Checkpoint of scale-space flow, CompressAI's too.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Weights file to write (.safetensors).")],
    name: Annotated[str, typer.Option("--name", help="Identifier that files made with these weights carry.")],
    flow_unit: Annotated[
        str, typer.Option("--flow-unit", help="What its flow counts in: corrected, relative or pixels.")
    ] = "corrected",
    notes: Annotated[str, typer.Option("--notes", help="Stored with the weights.")] = "",
    force: Force = False,
) -> None:
    """Make a weights file from a checkpoint: with the integer networks and tables that files depend on.

    Example:

      latens video freeze checkpoint.pth.tar -o mine.safetensors --name mine-1
    """
    check_output(output, force=force, inputs=[checkpoint])
    from latens.models.video import ScaleSpaceFlow
    from latens.zoo.pretrained import load_pretrained, read_checkpoint
    from latens.zoo.weights import save

    model = ScaleSpaceFlow.from_state_dict(load_pretrained(read_checkpoint(checkpoint))).eval()
    model.flow_unit = flow_unit
    save(model, output, name, notes, force=force)
    say(f"{printable(output)}: {Path(output).stat().st_size:,} bytes, {name}")


# ---- help


def _shown(target: str) -> str:
    return "standard output" if target == files.STANDARD else printable(target)


def _structure(gop: int, bframes: int | None, preset: str, scene_cuts: bool) -> Structure:
    """Which frames are coded alone, and which between others."""
    from latens.codec.structure import PRESETS, Structure

    if preset not in PRESETS:
        raise VideoError(f"--preset {printable(preset)[:40]}: expected {', '.join(PRESETS)}")
    return Structure(gop, PRESETS[preset] if bframes is None else bframes, scene_cuts)


def _with_sound(audio: str | None) -> bool:
    if audio not in (None, "copy"):
        raise VideoError(
            f"--audio {printable(audio)[:40]}: expected copy; sound is kept as it is, or not at all"
        )
    return audio == "copy"


def _seekable(stream: BinaryIO, stack: ExitStack) -> BinaryIO:
    """The file, or what comes through a pipe as one."""
    if stream.seekable():
        return stream
    spooled = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  (closed by the stack)
    shutil.copyfileobj(stream, spooled)
    spooled.seek(0)
    return cast(BinaryIO, spooled)


def _kept_sound(
    stream: BinaryIO, limits: ltn.Limits, salvage: bool, part: bool, stack: ExitStack
) -> SoundFile | None:
    """The sound of a file; None without."""
    from latens.io import SoundFile

    found = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  (closed by the stack)
    here = stream.tell()
    reader = ltn.VideoReader(stream, limits, on_error="conceal" if salvage else "raise", sound=found.write)
    for _ in reader.frames():
        pass
    stream.seek(here)
    if reader.sound_start is None or not found.tell():
        say("there is no sound in it")
        return None
    sound = SoundFile(cast(BinaryIO, found), reader.sound_start, part)
    stack.callback(sound.close)
    return sound


def _say_notes(name: str, file: VideoSource | VideoSink, quiet: bool) -> None:
    """What was converted; and what is not kept, which nobody who wants quiet may miss."""
    for note in file.notes:
        say(f"{name}: {note}", quiet)
    if file.not_kept:
        say(f"{name}: {NOT_KEPT}{', '.join(file.not_kept)}")


def _first(items: Iterator[Any], count: int) -> Iterator[Any]:
    for _ in range(count):
        try:
            yield next(items)
        except StopIteration:
            return


def _codec(
    model: str | None,
    quality: float | None,
    flow_unit: str | None,
    threads: int | None,
    needed: str | None = None,
    weights_dir: str | None = None,
    quiet: bool = False,
) -> VideoCodec:
    """The codec for what was asked for; ``needed`` is the model that a file names."""
    from latens.zoo import DEFAULT_VIDEO_MODEL

    if model is None and needed is not None and needed.startswith("ssf2020-"):
        model = needed[: len("ssf2020-1")] if needed[8:9].isdigit() else needed
    if model == "ssf2020":
        if quality is None or quality not in range(1, 10):
            raise ModelError("ssf2020 needs a quality: -q 1 (smallest) to -q 9 (best)")
        model, quality = f"ssf2020-{quality:g}", None
    if threads is not None:
        from latens.runtime import set_threads

        set_threads(threads)
    from latens.codec.video import VideoCodec
    from latens.zoo.weights import load_released_video, load_video

    if model is None and needed is not None:
        announce(needed, weights_dir, quiet)
        loaded = load_released_video(needed, weights_dir)
    else:
        loaded = load_video(model or DEFAULT_VIDEO_MODEL, flow_unit=flow_unit)
    if threads is not None and not loaded.exact:
        import torch

        torch.set_num_threads(threads)
    codec = VideoCodec(loaded)
    if quality is not None and not codec.qualities:
        raise ModelError(
            "these weights have one quality; -q chooses among those of --model ssf2020, or is left out"
        )
    return codec


def _rate(text: str) -> Fraction:
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError) as error:
        raise VideoError(f"expected --raw-fps as 25 or 30000/1001, got {text!a:.80}") from error


def _layout(size: str | None, rate: str, pixel_format: str) -> RawVideo | None:
    if size is None:
        return None
    from latens.io import RawVideo

    try:
        width, height = (int(side) for side in size.lower().split("x"))
    except ValueError as error:
        raise VideoError(f"expected --raw as 416x240, got {size!a}") from error
    planar, _, depth = pixel_format.removesuffix("le").partition("p")
    chroma = {"yuv420": "4:2:0", "yuv422": "4:2:2", "yuv444": "4:4:4"}.get(planar)
    if chroma is None or depth not in ("", "10", "12"):
        raise VideoError(
            f"--raw-format {printable(pixel_format)[:40]}: expected yuv420p, yuv422p, yuv444p, ..p10le or ..p12le"
        )
    return RawVideo(width, height, _rate(rate), chroma, int(depth or 8))


def _target(source: str, output: str | None, suffix: str, force: bool) -> str:
    """Where the result goes, checked before any work."""
    output = files.standard(output)
    if output is None:
        if source == files.STANDARD:
            raise OutputError("name the output with -o; '-' is standard output")
        # The sequence frame_%04d.png becomes frame_.ltn.
        plain = re.sub(r"%(0\d+)?d", "", Path(source).name) or "video"
        output = str(Path(source).with_name(plain).with_suffix(suffix))
    if output == files.STANDARD:
        if sys.stdout is None or sys.stdout.isatty():
            raise OutputError("standard output is closed or a terminal; redirect it, or name a file with -o")
    elif not output.endswith("/") and not Path(output).is_dir():
        check_output(output, force=force, inputs=[] if source == files.STANDARD else [source])
    return output


def _check_bitrate(wanted: float, quality: float | None, clip: str) -> None:
    """Refuse what cannot be coded in two passes, before any work."""
    if quality is not None:
        raise TargetError("give one of --quality and --target-bitrate, not both")
    if not (wanted > 0 and math.isfinite(wanted)):
        raise TargetError(f"--target-bitrate is in kbit/s, above 0, got {wanted:g}")
    if clip == files.STANDARD or Path(clip).is_fifo():
        raise VideoError(
            f"{files.shown(clip)}: --target-bitrate reads a video twice, and a pipe can be read once; "
            "give a file, or --quality"
        )


@contextmanager
def _written(target: str, source: str, force: bool, whole: bool = False) -> Iterator[BinaryIO]:
    """Where a .ltn file is written to: a temporary file, or standard output, there ``whole`` or not at all."""
    if target == files.STANDARD and whole:
        with tempfile.TemporaryFile() as spooled:
            yield cast(BinaryIO, spooled)
            spooled.seek(0)
            shutil.copyfileobj(spooled, sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return
    if target == files.STANDARD:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    output = TemporaryOutput(target, force=force, inputs=[] if source == files.STANDARD else [source])
    try:
        yield output.open()
        output.commit()
    except OSError as error:
        if error.strerror and not isinstance(error, OutputError):
            raise OutputError(f"{printable(target)}: cannot be written ({error.strerror})") from error
        raise
    finally:
        output.discard()


class _Counted:
    """A file that is written to, and how many bytes: pipes do not tell."""

    def __init__(self, file: BinaryIO) -> None:
        self.bytes = 0
        self._file = file

    def write(self, data: bytes) -> int:
        self.bytes += len(data)
        return self._file.write(data)


@contextmanager
def _source(name: str) -> Iterator[BinaryIO]:
    if name == files.STANDARD:
        if sys.stdin is None:
            raise ImageError("standard input is closed")
        yield sys.stdin.buffer
        return
    try:
        file = Path(name).open("rb")  # noqa: SIM115  (closed below)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise FormatError(f"{printable(name)}: cannot be read ({printable(reason)})") from error
    try:
        yield file
    finally:
        file.close()


def _patience(seconds: float) -> Callable[[], bool]:
    """Waits for a file to grow; False once nothing has come for so long."""
    last = time.monotonic()
    calls = 0.0

    def wait() -> bool:
        nonlocal last, calls
        now = time.monotonic()
        # Called again at once when the file has not grown, later when it has.
        if now - calls > 0.5:
            last = now
        calls = now
        if now - last > seconds:
            return False
        time.sleep(0.1)
        calls = time.monotonic()
        return True

    return wait


class _Progress:
    """Frames per second, on a terminal as they come."""

    def __init__(self, verb: str, total: int | None, quiet: bool) -> None:
        self._verb, self._total = verb, total
        self._shown = on_terminal() and not quiet
        self._bar: Any = None
        self._count = 0
        self._start = self._end = time.perf_counter()

    @property
    def rate(self) -> float:
        """Frames per second so far."""
        return self._count / max(self._end - self._start, 1e-9)

    def __enter__(self) -> _Progress:
        if self._shown:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]} frames/s"),
                TimeRemainingColumn(),
                console=Console(stderr=True, markup=False, highlight=False),
            )
            self._bar.start()
            self._task = self._bar.add_task(self._verb, total=self._total, rate="-")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            with suppress(OSError):
                self._bar.stop()

    def advance(self) -> None:
        """One frame more."""
        self._count += 1
        self._end = time.perf_counter()
        if self._bar is not None:
            self._bar.update(self._task, advance=1, rate=f"{self.rate:.1f}")
