"""Video models under the names, qualities and metrics of CompressAI's zoo."""

from __future__ import annotations

from typing import Any

from latens.zoo.architectures import ROOT_URL as root_url  # noqa: F401, N811  (scripts look for it here)
from latens.zoo.architectures import (
    ModelEntry,
    _load_model,  # noqa: F401
    attribute,
    register_entry,
)
from latens.zoo.pretrained import load_pretrained, load_state_dict_from_url  # noqa: F401

__all__ = ["dcvc_rt", "dcvc_rt_intra", "ssf2020"]

_JIA = "Jia et al., Towards practical real-time neural video compression, CVPR 2025"
_HASHES = "c1ac1a47 79ed4e19 9c8b998d 577c1eda 1dd7d574 59dfb6f9 4d867411 26439e20 e89345c4"


@register_entry
def dcvc_rt() -> ModelEntry:
    """Frames told of the one before, of DCVC-RT. Its authors have weights (DCVC, ``cvpr2025_video``)."""
    return ModelEntry(
        id="dcvc-rt",
        architecture="DCVCRT",
        sizes={0: (128, 128, 256, 320)},
        media="video",
        paper=_JIA,
        metrics=("mse",),
    )


@register_entry
def dcvc_rt_intra() -> ModelEntry:
    """Pictures on their own, of DCVC-RT: first frames. Its authors have weights (DCVC, ``cvpr2025_image``)."""
    return ModelEntry(
        id="dcvc-rt-intra",
        architecture="DCVCRTIntra",
        sizes={0: (256, 128, 368)},
        media="video",
        paper=_JIA,
        metrics=("mse",),
    )


@register_entry
def ssf2020() -> ModelEntry:
    """Scale-space flow. Qualities 1 to 9; weights were published for MSE only.

    Published weights compute what they do in CompressAI. Set ``flow_unit = "corrected"`` of the model for frames much
    larger than the crops of 256 pixels that they were trained on; see :class:`latens.models.video.ScaleSpaceFlow`.
    """
    return ModelEntry(
        id="ssf2020",
        architecture="ScaleSpaceFlow",
        sizes=dict.fromkeys(range(1, 10), ()),
        media="video",
        paper="Agustsson et al., Scale-space flow for end-to-end optimized video compression, CVPR 2020",
        weights={
            "mse": {q: f"ssf2020-mse-{q}-{digits}.pth.tar" for q, digits in enumerate(_HASHES.split(), 1)}
        },
    )


def __getattr__(name: str) -> Any:
    # Made when asked for, and kept: scripts written for CompressAI add to them.
    globals()[name] = found = attribute(name, "video")
    return found
