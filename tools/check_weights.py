"""Whether every card's weights can be had at their address: before a release goes out, and now and then after.

    python tools/check_weights.py [--base ADDRESS]

Fetches each file anew and compares its SHA-256 with the card's. Exit code 1 if one is missing or another.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile

from latens.errors import LatensError
from latens.zoo import cards
from latens.zoo.download import fetch
from latens.zoo.obtain import address


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--base", help="of a mirror")
    base = parser.parse_args().base
    if base:
        os.environ["LATENS_WEIGHTS_URL"] = base
    failed = 0
    with tempfile.TemporaryDirectory() as cache:
        os.environ["LATENS_CACHE"] = cache
        for card in (*cards(), *cards("video")):
            try:
                size = fetch(address(card.id), sha256=card.sha256).stat().st_size
            except LatensError as error:
                failed += 1
                print(f"{card.id}: {error}", file=sys.stderr)
            else:
                print(f"{card.id}: {address(card.id)}, {size:,} bytes, as its card says")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
