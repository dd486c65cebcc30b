"""Commands that measure and compare: ``latens bench``, ``eval``, ``report``, ``plot`` and ``find``."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latens.cli.files import show, to_standard_output
from latens.cli.messages import on_terminal, say
from latens.cli.options import Force, Json, Quiet
from latens.errors import CodecError, OutputError, ResultsError
from latens.io import atomic_write, check_output, printable

if TYPE_CHECKING:
    from latens.evaluate.results import Curve

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
Metric = Annotated[
    str | None,
    typer.Option(
        "--metric",
        help="ssimulacra2, ms_ssim, butteraugli, cvvdp, psnr_rgb, psnr_y, lpips or dists; by default the first "
        "of these that the results have.",
    ),
]
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


def _metrics(text: str) -> tuple[str, ...]:
    from latens.evaluate.quality import METRICS

    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    unknown = [name for name in names if name not in METRICS]
    if unknown or not names:
        raise ResultsError(f"--metrics {printable(text)}: expected some of {', '.join(METRICS)}")
    return names


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
    ] = "ssimulacra2,ms_ssim,butteraugli,cvvdp,psnr_rgb,psnr_y,lpips,dists",
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
    quiet: Quiet = False,
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
        metrics=_metrics(metrics),
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
    for metric, reason in results.absent.items():
        say(f"not measured: {metric}: {reason}", quiet)
    alike: dict[str, list[str]] = {}
    for failure in results.failures:
        place = f"{failure['image']} at {failure['setting']:g}"
        alike.setdefault(f"{failure['codec']}: {failure['reason']}", []).append(place)
    for what, places in alike.items():
        more = f" and {len(places) - 3} more" if len(places) > 3 else ""
        say(f"failed: {what} ({', '.join(places[:3])}{more})", quiet)
    say(f"{printable(output)}: {len(results.points):,} points", quiet)
    if results.failures or results.unreadable:
        raise typer.Exit(EXIT_PARTLY)


def report(
    results: Annotated[list[Path], typer.Argument(help="Results of 'latens bench'; several are merged.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page.")] = Path("report.html"),
    images: Annotated[
        Path | None,
        typer.Option("--images", help="Folder of the originals; where they were measured by default."),
    ] = None,
    anchors: Annotated[
        Path | None, typer.Option("--anchors", help="Published curves to show as well (JSON).")
    ] = None,
    limits: Annotated[
        tuple[float, float] | None, typer.Option("--range", help="PSNR range of BD-rates, in dB.")
    ] = None,
    rates: Annotated[
        str, typer.Option("--rates", help="Bits per pixel at which pictures are shown, as in 0.3,0.8.")
    ] = "",
    megabytes: Annotated[float, typer.Option("--max-megabytes", min=0.5, help="Limit for the page.")] = 12.0,
    pictures: Annotated[
        int, typer.Option("--pictures", min=1, help="Of how many images there are pictures.")
    ] = 12,
    title: Annotated[str, typer.Option("--title", help="Of the page.")] = "",
    encoder_path: EncoderPath = None,
    decoder_path: DecoderPath = None,
    config: Config = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace an existing page.")] = False,
) -> None:
    """Make a page out of results.

    One file that loads nothing: rate-distortion curves, BD-rates against any anchor, speed, every figure, and a viewer
    that compares codecs at about the same number of bytes. To keep it small, pictures are cropped and coded once
    more; figures are of the real files. Results from different machines are flagged.

    Examples:

      latens report results.json -o report.html

      latens report mine.json theirs.json --anchors published.json --range 28 39
    """
    from latens.evaluate import Results
    from latens.evaluate.report import report as make

    specs = tuple(spec for path in results for spec in Results.load(path).codecs)
    made = make(
        results,
        output,
        images=images,
        anchors=anchors,
        limits=limits,
        rates=_numbers(rates, "--rates"),
        megabytes=megabytes,
        shown=pictures,
        options=_programs(specs, encoder_path, decoder_path, config),
        title=title,
        force=force,
    )
    if len(made["machines"]) > 1:
        say("these results come from different machines: times cannot be compared")
    for note in made["picture_notes"]:
        say(note)
    say(f"{printable(output)}: {output.stat().st_size:,} bytes")


def evaluate(
    folder: Annotated[Path, typer.Argument(help="Folder of images, or one image.")],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Released model, weights file, or architecture of 'latens models --published'.",
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint", "-p", help="Weights for the architecture: a file, or a folder of several."
        ),
    ] = None,
    quality: Annotated[
        str, typer.Option("--quality", "-q", help="Qualities, as in 1,2,3; all by default.")
    ] = "",
    vbr_steps: Annotated[
        str,
        typer.Option("--vbr-steps", help="Quantisation steps of a model of variable rate, as in 10,5,2,1."),
    ] = "",
    objective: Annotated[
        str, typer.Option("--objective", help="What published weights were trained for: mse or ms-ssim.")
    ] = "mse",
    entropy_estimation: Annotated[
        bool, typer.Option("--entropy-estimation", help="Rates from the likelihoods; nothing is coded.")
    ] = False,
    half: Annotated[
        bool, typer.Option("--half", help="bfloat16 in the image networks; what decides about bits is not.")
    ] = False,
    coder: Annotated[
        str,
        typer.Option("--entropy-coder", help="ans, or rangecoder (latens[rangecoder]); architectures only."),
    ] = "ans",
    cuda: Annotated[bool, typer.Option("--cuda", help="Run an architecture on the GPU.")] = False,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Times to code each image.")] = 1,
    threads: ThreadsOfCodecs = 1,
    per_image: Annotated[bool, typer.Option("--per-image", help="Figures of every image, too.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the JSON to a file.")] = None,
    as_json: Json = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace an existing file.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Evaluate a model on a folder of images.

    Rates are those of real files, headers included; measures those of the decoded 8-bit image. Images count as
    RGB, grey ones too; transparency and metadata are left out. The JSON has CompressAI's layout, with more in further
    keys. Exit code 3 if an image could not be read.

    Examples:

      latens eval photos/

      latens eval photos/ --model mine.safetensors -q 20,50,80 --json

      latens eval photos/ --model mbt2018-mean -q 1,4 --entropy-estimation

      latens eval photos/ --model mbt2018-mean --checkpoint runs/ --per-image -o result.json
    """
    from latens.evaluate import make_codec
    from latens.evaluate.model import evaluate as run
    from latens.zoo import DEFAULT_MODEL, entries

    if output is not None:
        check_output(output, force=force)
    model = model or DEFAULT_MODEL
    options: dict[str, str] = {}
    if model in {known.id for known in entries()}:
        options |= {
            "fast": "yes" if half else "no",
            "metric": objective,
            "coder": coder,
            "device": "cuda" if cuda else "cpu",
        }
        if checkpoint is not None:
            options["weights"] = str(checkpoint)
    elif checkpoint is not None or coder != "ans" or cuda or half or objective != "mse":
        raise CodecError(
            f"{printable(model)}: --checkpoint, --entropy-coder, --cuda, --half and --objective are for "
            "architectures of 'latens models --published'"
        )
    if quality and vbr_steps:
        raise CodecError("give --quality or --vbr-steps, not both")
    codec = make_codec(model, threads, **options)
    if vbr_steps and codec.dial.name != "step":
        raise CodecError(f"{printable(model)}: is no model of variable rate; --vbr-steps are for these")
    settings = _numbers(quality or vbr_steps, "--vbr-steps" if vbr_steps else "--quality")
    with _Bar(quiet) as bar:
        found = run(codec, folder, settings, estimate=entropy_estimation, repeats=repeats, progress=bar.show)
    content = json.dumps(found.to_dict(model, per_image=per_image), indent=1, allow_nan=False)
    if output is not None:
        atomic_write(output, (content + "\n").encode(), force=force)
    if as_json:
        to_standard_output((content + "\n").encode())
    else:
        blocks: dict[str, Sequence[Mapping[str, Any]]] = dict(found.images) if per_image else {}
        text = _eval_table(codec.dial.name, found.settings, blocks | {"mean": found.means()})
        text += f"{len(found.images)} images. {found.description}\n"
        to_standard_output(text.encode(errors="backslashreplace"))
    for name, reason in found.unreadable.items():
        say(f"not read: {name}: {reason}")
    for metric, reason in found.absent.items():
        say(f"not measured: {metric}: {reason}")
    if found.unreadable:
        raise typer.Exit(EXIT_PARTLY)


def _eval_table(
    dial: str, settings: Sequence[float], blocks: Mapping[str, Sequence[Mapping[str, Any]]]
) -> str:
    columns = (
        ("bpp", "bpp", 4, 1),
        ("SSIMUL2", "ssimulacra2", 2, 1),
        ("MS-SSIM", "ms_ssim", 5, 1),
        ("Buttera", "butteraugli", 3, 1),
        ("PSNR dB", "psnr_rgb", 3, 1),
        ("luma dB", "psnr_y", 3, 1),
        ("enc ms", "encode_s", 1, 1000),
        ("dec ms", "decode_s", 1, 1000),
    )
    lines = [f"{dial:>10} " + " ".join(f"{heading:>8}" for heading, *_ in columns)]
    for name, rows in blocks.items():
        if len(blocks) > 1:
            lines.append(f"{printable(name)}:")
        for setting, row in zip(settings, rows, strict=True):
            cells = [
                " " * 8 if row.get(key) is None else f"{row[key] * unit:8.{digits}f}"
                for _, key, digits, unit in columns
            ]
            lines.append(f"{setting:10g} {' '.join(cells)}")
    return "\n".join(lines) + "\n"


def plot(
    results: Annotated[
        list[Path], typer.Argument(help="Results of bench or eval, CompressAI's JSON, or published curves.")
    ],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Picture to write.")] = None,
    metric: Metric = None,
    title: Annotated[str, typer.Option("--title", "-t", help="Above the plot.")] = "",
    backend: Annotated[
        str, typer.Option("--backend", help="matplotlib (.png, .svg, .pdf) or plotly (.html).")
    ] = "matplotlib",
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Draw this curve; may be repeated. All by default.")
    ] = None,
    log: Annotated[bool, typer.Option("--log", help="Logarithmic rate axis.")] = False,
    figsize: Annotated[tuple[float, float], typer.Option("--figsize", help="Inches.")] = (9.0, 6.0),
    axes: Annotated[
        tuple[float, float, float, float] | None,
        typer.Option("--axes", help="Limits: xmin xmax ymin ymax."),
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Open it.")] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace an existing picture.")] = False,
) -> None:
    """Draw rate-distortion curves.

    Examples:

      latens plot results.json -o curves.png

      latens plot results.json published.json --only latens --only VTM --log -o curves.svg

      latens plot results.json --metric psnr_rgb --backend plotly -o curves.html
    """
    from latens.evaluate.plot import plot as draw

    if output is None and not show:
        raise OutputError("give a picture to write with -o, or --show")
    curves, published, metric = _curves(results, metric)
    if only:
        unknown = [name for name in only if name not in curves]
        if unknown:
            known = ", ".join(curves)
            raise ResultsError(f"no curve {printable(unknown[0])}; there are {printable(known)}")
        curves = {name: curves[name] for name in only}
    draw(
        curves, output, metric=metric, title=title, backend=backend, size=figsize, axes=axes, log=log,
        dashed=frozenset(published), show=show, force=force,
    )  # fmt: skip


def _curves(paths: list[Path], metric: str | None) -> tuple[dict[str, Curve], set[str], str]:
    """All curves, the names of those that were not measured by Latens, and the measure that they are of."""
    from latens.evaluate import read_curves
    from latens.evaluate.quality import METRICS
    from latens.evaluate.results import is_measured

    if metric is None:
        metric = next((m for m in METRICS if any(read_curves(path, m) for path in paths)), METRICS[0])
    if metric not in METRICS:
        raise ResultsError(f"--metric {printable(metric)}: expected one of {', '.join(METRICS)}")
    curves: dict[str, Curve] = {}
    published: set[str] = set()
    for path in paths:
        for name, curve in read_curves(path, metric).items():
            unique = name if name not in curves else f"{name} ({path.stem})"
            curves[unique] = curve
            if not is_measured(path):
                published.add(unique)
    return curves, published, metric


def find(
    image: Annotated[Path, typer.Argument(help="The image.")],
    target: Annotated[float, typer.Option("--target", "-t", help="Value to come close to.")],
    codec: Annotated[str, typer.Option("--codec", "-c", help="As for 'latens bench'.")] = "latens",
    metric: Annotated[
        str, typer.Option("--metric", help="bpp, bytes, ssimulacra2, ms-ssim, butteraugli, psnr or psnr_y.")
    ] = "psnr",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Keep the coded file.")] = None,
    decoded: Annotated[Path | None, typer.Option("--decoded", help="Keep the decoded image (.png).")] = None,
    threads: ThreadsOfCodecs = 1,
    encoder_path: EncoderPath = None,
    decoder_path: DecoderPath = None,
    config: Config = None,
    as_json: Json = False,
    force: Force = False,
) -> None:
    """Find the setting of any codec that comes closest to a rate or a quality.

    Examples:

      latens find photo.png --codec avif --metric ssimulacra2 --target 70

      latens find photo.png --codec latens --metric bpp --target 0.5 -o photo.ltn
    """
    from latens.evaluate import find_closest, make_codec, measure, read_rgb
    from latens.evaluate.quality import MEASURES
    from latens.io import Image, write_image

    for path in (output, decoded):
        if path is not None:
            check_output(path, force=force, inputs=[image])
    pixels = read_rgb(image)
    codec_ = make_codec(
        codec, threads, **_programs((codec,), encoder_path, decoder_path, config).get(codec, {})
    )
    found = find_closest(codec_, pixels, metric, target)
    height, width = pixels.shape[:2]
    result = codec_.decode(found.data, (height, width), found.setting)
    if output is not None:
        atomic_write(output, found.data, force=force, inputs=[image])
    if decoded is not None:
        write_image(Image(result), decoded, force=force, inputs=[image])
    also = (metric,) if metric in MEASURES else ()
    row: dict[str, Any] = {
        "codec": codec,
        codec_.dial.name: found.setting,
        "bytes": len(found.data),
        "bpp": 8 * len(found.data) / (width * height),
        **measure(
            pixels, result, tuple(dict.fromkeys(("ssimulacra2", "ms_ssim", "psnr_rgb", "psnr_y", *also)))
        ),
    }
    if as_json:
        text = json.dumps(row, indent=1)
    else:
        text = f"{printable(codec)} {codec_.dial.name} {found.setting:g}: {row['bytes']:,} bytes, {row['bpp']:.4f} bpp"
        db = row.pop("psnr_rgb")
        text += ", lossless" if db is None else f", {db:.3f} dB"
        for key, about in MEASURES.items():
            if key != "psnr_y" and row.get(key) is not None:
                text += f", {about.label} {row[key]:.{about.digits}f}"
    show(text)


_LINE_SECONDS = 30.0


def fit_quality(
    model: Annotated[str, typer.Argument(help="Weights file, or a released model.")],
    photos: Annotated[Path, typer.Argument(help="Folder of photographs that were kept out of training.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The scale (JSON).")],
    side: Annotated[
        int, typer.Option("--side", min=256, help="Of the parts that are coded, in pixels.")
    ] = 768,
    threads: ThreadsOfCodecs = 1,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Fit what qualities of 0 to 100 mean for a model.

    The scale says at which level of the model photographs have a SSIMULACRA2 score of about the quality, on average
    over those in the folder, coded for real.

    Example:

      latens fit-quality mine.safetensors heldout/ -o mine-quality.json
    """
    from latens.codec import ImageCodec
    from latens.evaluate.scale import fit_scale
    from latens.runtime import set_threads
    from latens.zoo import load

    check_output(output, force=force)
    loaded = load(model)
    loaded.base  # noqa: B018 - refuses models of a few rates
    set_threads(threads)
    with _Bar(quiet) as bar:
        found = fit_scale(ImageCodec(loaded), photos, side=side, progress=bar.show)
    atomic_write(output, (found.scale.to_json() + "\n").encode(), force=force)
    rows = zip(found.levels, found.bpp, found.scores, strict=True)
    text = "".join(f"{level:8.4f} {bpp:8.4f} {score:8.2f}\n" for level, bpp, score in rows)
    to_standard_output(f"   level      bpp  SSIMULACRA2\n{text}".encode())


class _Bar:
    """A progress bar on a terminal, a line now and then elsewhere."""

    def __init__(self, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            MofNCompleteColumn(), BarColumn(), TimeRemainingColumn(), TextColumn("{task.description}", markup=False),
            console=Console(stderr=True, markup=False, highlight=False), disable=quiet or not on_terminal(),
        )  # fmt: skip
        self._task = self._bar.add_task("", total=None)
        self._lines = not (quiet or on_terminal())
        self._said = time.monotonic()

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, done: int, total: int, text: str) -> None:
        """As the harness calls it."""
        self._bar.update(self._task, total=total, completed=done, description=printable(text))
        now = time.monotonic()
        if self._lines and now - self._said >= _LINE_SECONDS:
            self._said = now
            say(f"{done:,} of {total:,}: {text}")
