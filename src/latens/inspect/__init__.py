"""Where the bits of a picture go, as arrays and as pictures.

>>> from latens import inspect
>>> anatomy = inspect.load_subject().inspect(pixels, 50)  # doctest: +SKIP
>>> anatomy.bit_map().sum() / 8, anatomy.size  # theoretical and real bytes  # doctest: +SKIP

``load_subject`` opens any model: a released one, a weights file, an architecture of the zoo, or a checkpoint of one.
What a subject returns are arrays; ``write_report`` makes pictures and a page of them (needs ``latens[eval]``).
"""

from latens import _research  # noqa: F401  (tells who lacks PyTorch)
from latens.inspect.anatomy import (
    Anatomy,
    Baselines,
    Latent,
    Part,
    RatePoint,
    gaussian_pmf,
    spatial_correlation,
)
from latens.inspect.figures import figures, require_matplotlib
from latens.inspect.report import write_report
from latens.inspect.subjects import ClassicSubject, LtnSubject, Subject, load_subject

__all__ = [
    "Anatomy",
    "Baselines",
    "ClassicSubject",
    "Latent",
    "LtnSubject",
    "Part",
    "RatePoint",
    "Subject",
    "figures",
    "gaussian_pmf",
    "load_subject",
    "require_matplotlib",
    "spatial_correlation",
    "write_report",
]
