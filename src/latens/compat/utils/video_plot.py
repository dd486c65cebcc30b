"""Rate-distortion curves of videos: ``python -m compressai.utils.video.plot -f RESULTS.json ... -o curves.png``."""

from __future__ import annotations

import sys

from latens.compat.utils.plot import draw, setup_args

__all__ = ["main"]


def main(argv: list[str]) -> None:
    """Run with these arguments.

    Raises:
        SystemExit: wrong arguments, or neither a picture to write nor ``--show``.
        LatensError: see :func:`latens.compat.utils.plot.draw`.
    """
    parser = setup_args("psnr-rgb")
    arguments = parser.parse_args(argv)
    if not arguments.show and not arguments.output:
        parser.error("give a picture to write with -o, or --show")
    draw(arguments, "bitrate", "Bit-rate [kbps]")


if __name__ == "__main__":
    main(sys.argv[1:])
