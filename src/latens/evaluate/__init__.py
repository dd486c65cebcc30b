"""Measuring and comparing codecs: one harness, one result store, curves, searches, plots and a report.

Needs nothing beyond what Latens needs; ``latens[eval]`` adds JPEG XL, ffmpeg's codecs and the plots.
"""

from latens.evaluate.bench import Plan, bench
from latens.evaluate.codecs import Codec, Dial, codec_names, make_codec, register_codec
from latens.evaluate.quality import find_images, measure, read_rgb
from latens.evaluate.results import Curve, Results, read_curves, table
from latens.evaluate.search import Found, find_closest

__all__ = [
    "Codec",
    "Curve",
    "Dial",
    "Found",
    "Plan",
    "Results",
    "bench",
    "codec_names",
    "find_closest",
    "find_images",
    "make_codec",
    "measure",
    "read_curves",
    "read_rgb",
    "register_codec",
    "table",
]
