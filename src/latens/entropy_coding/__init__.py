"""Entropy coding: symbols to bytes and back, with integer CDF tables (bit by bit: ``docs/coder.md``).

There are two streams. The *compatible* one (:func:`encode`, :class:`Encoder`, :func:`decode`,
:class:`Decoder`) has one 64-bit rANS state and holds the same bytes as CompressAI's for the same symbols,
indexes and tables. The *lane* stream (:class:`LaneEncoder`, :class:`LaneDecoder`) interleaves several states
so that decoding is fast, leaves positions out by rule, and is what ``.ltn`` files hold.

Tables are checked and prepared once, by :class:`CdfTables`; arrays cross to the native code without copies,
and the GIL is released while it works.
"""

from latens.entropy_coding.coders import (
    CdfTables,
    Decoder,
    Encoder,
    LaneDecoder,
    LaneEncoder,
    choose_lanes,
    decode,
    encode,
)
from latens.entropy_coding.quantize import pmf_to_quantized_cdf, pmfs_to_quantized_cdfs

__all__ = [
    "CdfTables",
    "Decoder",
    "Encoder",
    "LaneDecoder",
    "LaneEncoder",
    "choose_lanes",
    "decode",
    "encode",
    "pmf_to_quantized_cdf",
    "pmfs_to_quantized_cdfs",
]
