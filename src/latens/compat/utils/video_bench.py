"""Other video codecs on raw videos: ``python -m compressai.utils.video.bench CODEC FOLDER OUT -q 22,27,32,37``."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from latens.compat.utils.common import dump, find_files, means, numbers
from latens.compat.utils.video_codecs import CODECS, Codec
from latens.compat.utils.video_measures import (
    open_sequence,
    planes_of,
    psnr,
    squared_errors,
    structural_similarity,
    to_rgb,
)
from latens.datasets import RawVideoSequence
from latens.errors import VideoError
from latens.evaluate.codecs.programs import run

__all__ = ["collect", "evaluate", "main", "setup_args"]


def evaluate(original: Path, decoded: Path, coded: Path, cuda: bool = False) -> dict[str, float]:
    """Measures of a decoded video: PSNR (dB) of squared errors over all frames, MS-SSIM, ``bitrate`` in kbit/s.

    Raises:
        VideoError: another number of frames, or not 4:2:0.
    """
    sequence = open_sequence(original)
    found = RawVideoSequence.new_like(sequence, decoded)
    if len(found) != len(sequence):
        raise VideoError(f"{original}: of {len(sequence)} frames, {len(found)} were decoded")
    peak, device = float(2**sequence.bitdepth - 1), "cuda" if cuda else "cpu"
    rows = []
    for frames in zip(sequence, found, strict=True):
        a, b = (planes_of(frame, device) for frame in frames)
        errors = squared_errors(a, b)
        row = dict(zip("yuv", errors, strict=True))
        x, y = ((to_rgb(planes, peak) * peak).clamp(0, peak).round() for planes in (a, b))
        row["rgb"] = float((x - y).double().square().mean())
        rows.append(row | structural_similarity(x, y, peak))
    mean = means(rows)
    result = {f"psnr-{name}": psnr(mean.pop(name), peak) for name in ("rgb", "y", "u", "v")}
    result["psnr-yuv"] = (4 * result["psnr-y"] + result["psnr-u"] + result["psnr-v"]) / 6
    rate = 8 * coded.stat().st_size * float(sequence.framerate or 0) / (1000 * len(rows))
    return {**mean, **result, "bitrate": rate}


def _run(
    codec: Codec, path: Path, qp: int, folder: str, dataset: str, cuda: bool, force: bool, dry: bool
) -> dict[str, float]:
    coded = codec.get_bin_path(path, qp, folder, dataset)
    known = coded.with_suffix(".json")
    if not force and coded.is_file() and known.is_file():
        print(f"{known}: measured already", file=sys.stderr)
        results: dict[str, float] = json.loads(known.read_bytes())["results"]
        return results
    command = [str(part) for part in codec.get_encode_cmd(path, qp, coded)]
    if dry:
        print(" ".join(command), file=sys.stderr)
        return {}
    if force or not coded.is_file():
        coded.with_suffix(".log").write_bytes(run(command))
    with tempfile.TemporaryDirectory() as temporary:
        decoded = Path(temporary) / "decoded.yuv"
        run([str(part) for part in codec.get_decode_cmd(coded, decoded, path)])
        found = evaluate(path, decoded, coded, cuda)
    name = {"source": path.stem, "name": codec.name_config(), "description": codec.description}
    dump({**name, "results": found}, known)
    return found


def collect(
    dataset: str,
    codec: Codec,
    outputdir: str,
    qps: list[int],
    num_jobs: int = 1,
    *,
    cuda: bool = False,
    force: bool = False,
    dry_run: bool = False,
) -> dict[str, list[float]]:
    """Means over the videos of a folder, a list with a value per setting for each measure, and the settings as ``qp``.

    Raises:
        SystemExit: no videos.
        CodecError, VideoError: the codec fails, or a video cannot be read.
    """
    paths = find_files(dataset, (".yuv",))
    if not paths:
        raise SystemExit(f"{dataset}: no .yuv file in this folder")
    work = [(codec, path, qp, outputdir, dataset, cuda, force, dry_run) for qp in qps for path in paths]
    with ThreadPoolExecutor(num_jobs) as pool:
        rows = list(pool.map(_run, *zip(*work, strict=True))) if work else []
    found = [{"qp": qp, **means(rows[i * len(paths) : (i + 1) * len(paths)])} for i, qp in enumerate(qps)]
    return {key: [row[key] for row in found] for key in found[0]} if found else {}


def setup_args() -> argparse.ArgumentParser:
    """The options."""
    common = argparse.ArgumentParser(add_help=False)
    add = common.add_argument
    add("dataset", help="folder of raw videos (.yuv)")
    add("outputdir", help="folder to write to")
    add("-n", "--dry-run", action="store_true", help="only say what would be run")
    add("-f", "--force", action="store_true", help="do again what has been done")
    add("-j", "--num-jobs", type=int, default=1, metavar="N", help="processes (default: %(default)s)")
    add("-q", "--qps", default="1", help="settings of the codec, as in 22,27 (default: %(default)s)")
    add("--cuda", action="store_true", help="measure on the GPU")
    parser = argparse.ArgumentParser(description="Measure a video codec on raw videos.")
    codecs = parser.add_subparsers(dest="codec", required=True)
    for name, kind in CODECS.items():
        kind().add_parser_args(codecs.add_parser(name, parents=[common], help=kind.__doc__))
    return parser


def main(argv: list[str] | None = None) -> None:
    """Run with these arguments.

    Raises:
        SystemExit: wrong arguments, or no videos.
        LatensError: a codec that is not there or fails, videos that cannot be read.
    """
    arguments = setup_args().parse_args(argv)
    codec = CODECS[arguments.codec]()
    codec.set_args(arguments)
    results: dict[str, Any] = dict(
        collect(
            arguments.dataset,
            codec,
            arguments.outputdir,
            numbers(arguments.qps),
            arguments.num_jobs,
            cuda=arguments.cuda,
            force=arguments.force,
            dry_run=arguments.dry_run,
        )
    )
    content = {"name": codec.name_config(), "description": codec.description, "results": results}
    print(dump(content, Path(arguments.outputdir) / f"{codec.name_config()}.json"))


if __name__ == "__main__":
    main(sys.argv[1:])
