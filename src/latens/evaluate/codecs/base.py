"""What a codec is to the harness, and the registry of those it knows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from latens.errors import CodecError
from latens.io import printable

__all__ = ["Codec", "Dial", "Pixels", "codec_names", "make_codec", "register_codec", "register_family"]

Pixels = npt.NDArray[np.uint8]
"""An image: uint8, height x width x 3, R, G, B."""


@dataclass(frozen=True)
class Dial:
    """What chooses the rate of a codec.

    Attributes:
        name: as the codec calls it.
        low: smallest value.
        high: largest value.
        step: smallest difference that makes sense.
        points: values to measure when nobody names any, from the smallest files to the largest.
    """

    name: str
    low: float
    high: float
    step: float
    points: tuple[float, ...]

    @property
    def rising(self) -> bool:
        """Whether larger values make larger files."""
        return len(self.points) < 2 or self.points[-1] > self.points[0]


class Codec(ABC):
    """Whole files out of images and back.

    An adapter is one small class: it says what it is in class attributes and implements :meth:`encode`,
    :meth:`decode` and :meth:`version`. Options come as text, since they are given on the command line.

    Attributes:
        spec: the name with the options that were given, as results show it.
        options: all options with their values.
        threads: that the codec may use.

    Args:
        spec: see above.
        options: those that were given.
        threads: see above.

    Raises:
        CodecError: an option that the codec does not have, or it is not installed.
    """

    suffix: ClassVar[str]
    dial: Dial
    defaults: ClassVar[Mapping[str, str]] = {}
    colour: ClassVar[str] = "RGB in, RGB out; what happens between is the codec's own affair"
    timing: ClassVar[str] = "calls in a running process"

    def __init__(self, spec: str, options: Mapping[str, str], threads: int = 1) -> None:
        unknown = sorted(set(options) - set(self.defaults))
        if unknown:
            known = ", ".join(self.defaults) or "none"
            raise CodecError(f"{printable(spec)}: no option {printable(unknown[0])}; there are: {known}")
        self.spec = spec
        self.options = {**self.defaults, **options}
        self.threads = threads

    @abstractmethod
    def version(self) -> str:
        """Of what does the work."""

    @abstractmethod
    def encode(self, pixels: Pixels, setting: float) -> bytes:
        """The file of an image."""

    @abstractmethod
    def decode(self, data: bytes, size: tuple[int, int], setting: float) -> Pixels:
        """The image of a file.

        Args:
            data: what :meth:`encode` made.
            size: (height, width), for formats that only have even sides.
            setting: that it was made with, for models that are one per rate and don't say which made a file.
        """

    def flag(self, name: str) -> bool:
        """Value of an option that is yes or no."""
        value = self.options[name]
        if value not in ("yes", "no"):
            raise CodecError(f"{printable(self.spec)}: {name} must be yes or no, got {printable(value)}")
        return value == "yes"

    def number(self, name: str) -> int:
        """Value of an option that is a whole number."""
        try:
            return int(self.options[name])
        except ValueError:
            raise CodecError(
                f"{printable(self.spec)}: {name} must be a whole number, got {printable(self.options[name])}"
            ) from None

    def choice(self, name: str, *allowed: str) -> str:
        """Value of an option that is one of a few words."""
        if self.options[name] not in allowed:
            given = printable(self.options[name])
            raise CodecError(f"{printable(self.spec)}: {name} must be {' or '.join(allowed)}, got {given}")
        return self.options[name]

    def describe(self) -> dict[str, Any]:
        """What results say about the codec."""
        return {
            "version": self.version(),
            "options": self.options,
            "dial": asdict(self.dial),
            "suffix": self.suffix,
            "colour": self.colour,
            "timing": self.timing,
        }


Make = Callable[[str, Mapping[str, str], int], Codec]
T = TypeVar("T", bound=type[Codec])

_CODECS: dict[str, type[Codec]] = {}
_FAMILIES: list[Callable[[str], Make | None]] = []


def register_codec(name: str) -> Callable[[T], T]:
    """Class decorator: makes a codec known by a name.

    Raises:
        CodecError: the name is taken, or has characters that specifications need.
    """
    if name in _CODECS or set(name) & set(":,="):
        raise CodecError(f"a codec cannot be registered as {printable(name)}")

    def add(codec: T) -> T:
        _CODECS[name] = codec
        return codec

    return add


def register_family(find: Callable[[str], Make | None]) -> Callable[[str], Make | None]:
    """Decorator of a function that makes codecs out of names that are in no registry, such as paths."""
    _FAMILIES.append(find)
    return find


def codec_names() -> tuple[str, ...]:
    """Names of the registry, in the order in which they were registered."""
    return tuple(_CODECS)


def split_spec(spec: str) -> tuple[str, dict[str, str]]:
    """Name and options of ``name:key=value:key=value``.

    >>> split_spec("avif:speed=6")
    ('avif', {'speed': '6'})
    """
    name, *parts = spec.split(":")
    options: dict[str, str] = {}
    rest = [name]
    for part in parts:
        key, equals, value = part.partition("=")
        if equals and key.isidentifier():
            options[key] = value
        elif options:  # a colon inside of the value
            options[next(reversed(options))] += f":{part}"
        else:
            rest.append(part)
    return ":".join(rest), options


def make_codec(spec: str, threads: int = 1, **more: str) -> Codec:
    """The codec of a specification ``name:option=value:...``.

    Args:
        spec: a registered name, an architecture or released model of the zoo, or a weights file.
        threads: that the codec may use.
        more: options that need not be shown in results, such as paths of programs.

    Raises:
        CodecError: an unknown name or option, or the codec is not installed.
        LatensError: a model that cannot be loaded.
    """
    name, options = split_spec(spec)
    make: Make | None = _CODECS.get(name)
    for find in _FAMILIES:
        make = make or find(name)
    if make is None:
        raise CodecError(
            f"{printable(name)}: no such codec; there are {', '.join(_CODECS)}, the models of 'latens models' "
            "(also --published), and weights files"
        )
    return make(spec, {**options, **more}, threads)
