"""The setting of a codec that comes closest to a rate or a quality: ``python -m compressai.utils.find_close``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from latens.compat.utils.codecs import CODECS
from latens.evaluate import find_closest
from latens.evaluate.quality import read_rgb

__all__ = ["main", "setup_args"]

_TARGETS = {"bpp": "bpp", "psnr-rgb": "psnr", "ms-ssim-rgb": "ms-ssim"}


def setup_args() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(description="Find the setting of a codec for one image and one target.")
    codecs = parser.add_subparsers(dest="codec", required=True)
    parser.add_argument("image", help="the image")
    parser.add_argument("target", type=float, help="value to come close to")
    parser.add_argument("-m", "--metric", choices=list(_TARGETS), default="bpp", help="of what")
    parser.add_argument(
        "--save", action="store_true", help="write the decoded image, output_<codec>_q<setting>.png"
    )
    for name, kind in CODECS.items():
        kind.setup_args(codecs.add_parser(name, help=kind.__doc__))
    return parser


def main(argv: list[str]) -> None:
    """Run with these arguments.

    Raises:
        SystemExit: wrong arguments.
        LatensError: a codec that is not there or fails, an image that cannot be read.
    """
    arguments = setup_args().parse_args(argv)
    codec = CODECS[arguments.codec](arguments)
    image = Path(arguments.image)
    found = find_closest(codec.adapter, read_rgb(image), _TARGETS[arguments.metric], arguments.target)
    row, decoded = codec.run(image, found.setting, list(_TARGETS)[1:], return_rec=True)
    print(
        f"target {arguments.metric}: {arguments.target:.4f} | value: {row[arguments.metric]:.4f} | "
        f"q: {found.setting:g}",
        file=sys.stderr,
    )
    for key, value in row.items():
        print(f"{key}: {value:.4f}")
    if arguments.save:
        decoded.save(f"output_{arguments.codec}_q{found.setting:g}.png")


if __name__ == "__main__":
    main(sys.argv[1:])
