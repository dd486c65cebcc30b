"""Every error that Latens raises on purpose.

All derive from :class:`LatensError`, and each from the built-in exception that describes it best, so that
``except ValueError`` written for other libraries keeps working. A message says what was expected, what
came, and what to do next. This module imports nothing and may be imported from anywhere.
"""


class LatensError(Exception):
    """Base class of all errors raised on purpose by Latens."""


class ImageError(LatensError, ValueError):
    """The input is not an image that can be coded (unreadable, unsupported, animated, wrong shape)."""


class VideoError(LatensError, ValueError):
    """The input is not a video that can be coded (unreadable, cut, a playlist, of changing size)."""


class FormatError(LatensError, ValueError):
    """A ``.ltn`` file is damaged, incomplete, or not a ``.ltn`` file at all."""


class TruncatedError(FormatError):
    """The data end before the structure they announce does."""


class ChecksumError(FormatError):
    """Stored and computed checksum differ: the data were altered after they were written."""


class VersionError(FormatError):
    """The file asks for a format version or a critical feature that this release does not know."""


class LimitError(LatensError, ValueError):
    """A size is above a limit that protects memory and time; checked before anything is allocated."""


class CoderError(LatensError, ValueError):
    """An entropy-coder stream, symbol or index is out of range or inconsistent."""


class TableError(LatensError, ValueError):
    """CDF tables, quantiles or scale tables are not valid (not monotone, not finite, wrong size)."""


class ModelError(LatensError, ValueError):
    """A model, its configuration or its weights cannot be used as asked."""


class UnknownModelError(ModelError):
    """No model is registered under this name."""


class UnavailableError(ModelError, RuntimeError):
    """Something that is known by name, but is not there: a class, weights, a package, a buffer."""


class WrongWeightsError(ModelError):
    """A file was made with other entropy networks or weights than the ones at hand."""


class ShapeError(LatensError, ValueError):
    """A tensor or array has another shape, dtype or layout than the function documents."""


class TargetError(LatensError, ValueError):
    """No quality gives the size or the PSNR that was asked for."""


class OutputError(LatensError, OSError):
    """The result cannot be written where it was asked for."""


class WorkerError(LatensError, RuntimeError):
    """A process, or a machine, that worked on a file has died."""


class TrainingError(LatensError, RuntimeError):
    """Training cannot start or go on (no images, loss not finite, mismatching checkpoint)."""


class DownloadError(LatensError, OSError):
    """Weights cannot be fetched: no network, no such file, or not the file that was announced."""


class DatasetError(LatensError, ValueError, RuntimeError):
    """Files of a data set are missing, damaged, or not what its options say."""


class RegistryError(LatensError, ValueError):
    """A name is registered already, for something else."""


class CurveError(LatensError, ValueError):
    """Rate-distortion curves cannot be compared (too few points, not monotone, no common range)."""


class CodecError(LatensError, RuntimeError):
    """A codec to compare with is unknown, not installed, or failed."""


class ResultsError(LatensError, ValueError):
    """A results file cannot be read, or results cannot be used together."""


class OutOfScopeError(LatensError, ImportError):
    """Something of CompressAI that Latens does not have and will not have."""


def named(error: LatensError, name: str) -> LatensError:
    """The same error with the name of its file in front, unless it is there already, as in a server's."""
    text = str(error)
    return type(error)(text if text.startswith(f"{name}: ") else f"{name}: {text}")
