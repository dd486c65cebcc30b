"""Families of models: one entry for each, and the only place that knows them all.

An entry names what a family brings along, as ``module:attribute``, so that nothing is imported that is not used: a
program that decodes a file never meets PyTorch unless the file's model needs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from latens.errors import ModelError

__all__ = ["Family", "families", "family", "family_of_network", "register_family"]


@dataclass(frozen=True)
class Family:
    """What a family of models brings along.

    Attributes:
        id: what weights files say they are.
        media: ``"image"`` or ``"video"``.
        load: from the name, the SHA-256, the arrays and the metadata of a weights file to a model that codes files.
        network: class of its float networks; subclasses count.
        convert: from such a network, its name and notes to arrays and metadata of a weights file.
        extra: what has to be installed for ``load``; empty for nothing.
    """

    id: str
    media: str
    load: str
    network: str
    convert: str
    extra: str = ""

    def find(self, what: str) -> Any:
        """What one of the attributes names.

        Raises:
            ModelError: what it needs is not installed.
        """
        module, _, name = str(getattr(self, what)).partition(":")
        try:
            return getattr(import_module(module), name)
        except ImportError as error:
            needed = self.extra or "torch"
            raise ModelError(
                f"models of the family {self.id} need PyTorch: pip install 'latens[{needed}]'"
            ) from error


_FAMILIES: dict[str, Family] = {}


def register_family(new: Family) -> Family:
    """Add a family.

    Raises:
        ValueError: the identifier is taken.
    """
    if new.id in _FAMILIES:
        raise ValueError(f"family {new.id!r} is registered twice")
    _FAMILIES[new.id] = new
    return new


def families() -> tuple[Family, ...]:
    """All families."""
    return tuple(_FAMILIES.values())


def family(identifier: str) -> Family:
    """The family that a weights file names.

    Raises:
        ModelError: there is none.
    """
    try:
        return _FAMILIES[identifier]
    except KeyError:
        raise ModelError(
            f"weights of the family {identifier!a:.80} are not known to this release; it knows {', '.join(_FAMILIES)}"
        ) from None


def family_of_network(network: object) -> Family:
    """The family of a float network.

    Raises:
        ModelError: it is of none.
    """
    for known in _FAMILIES.values():
        if isinstance(network, known.find("network")):
            return known
    raise ModelError(f"{type(network).__name__} is no network that files can be coded with")


register_family(
    Family(
        id="pictures",
        media="image",
        load="latens.runtime.released:load",
        network="latens.models.latens_base:LatensBase",
        convert="latens.convert.pictures:weights_of",
    )
)
register_family(
    Family(
        id="video",
        media="video",
        load="latens.runtime.video:load",
        network="latens.models.video:LatensVideo",
        convert="latens.convert.video:weights_of",
    )
)
register_family(
    Family(
        id="scale-space-flow",
        media="video",
        load="latens.convert.flow:load",
        network="latens.models.video:ScaleSpaceFlow",
        convert="latens.convert.flow:weights_of",
        extra="torch",
    )
)
# Last: any other network of the zoo is one of these, scale-space flow too.
register_family(
    Family(
        id="published",
        media="image",
        load="latens.convert.research:load",
        network="latens.models:CompressionModel",
        convert="latens.convert.research:weights_of",
        extra="torch",
    )
)
