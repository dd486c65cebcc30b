"""Image models under the names, qualities and metrics of CompressAI's zoo.

Each function makes a model: ``mbt2018_mean(quality=3, pretrained=True)``. Weights, where published, are those of
CompressAI, trained on 256x256 patches of Vimeo-90K.
"""

from __future__ import annotations

from typing import Any

from latens.zoo.architectures import ROOT_URL as root_url  # noqa: F401, N811  (see _load_model)
from latens.zoo.architectures import (
    ModelEntry,
    _load_model,  # noqa: F401  (scripts written for CompressAI look for these here)
    attribute,
    register_entry,
)
from latens.zoo.pretrained import load_pretrained, load_state_dict_from_url  # noqa: F401

__all__ = [
    "bmshj2018_factorized",
    "bmshj2018_factorized_relu",
    "bmshj2018_hyperprior",
    "bmshj2018_hyperprior_vbr",
    "cca",
    "cheng2020_anchor",
    "cheng2020_anchor_checkerboard",
    "cheng2020_attn",
    "cheng2020_gmm",
    "dcae",
    "elic2022_chandelier",
    "elic2022_official",
    "hpcm",
    "hpcm_large",
    "lalic",
    "mbt2018",
    "mbt2018_mean",
    "mbt2018_mean_vbr",
    "mbt2018_vbr",
    "mlic_plus_plus",
    "stf",
    "tcm",
    "wacnn",
]

_LMBDA = {
    "mse": (0.0018, 0.0035, 0.0067, 0.0130, 0.0250, 0.0483, 0.0932, 0.1800),
    "ms-ssim": (2.40, 4.58, 8.73, 16.64, 31.73, 60.50, 115.37, 220.00),
}
_BALLE = "Ballé et al., Variational image compression with a scale hyperprior, ICLR 2018, arXiv:1802.01436"
_MINNEN = (
    "Minnen et al., Joint autoregressive and hierarchical priors for learned image compression, NeurIPS 2018, "
    "arXiv:1809.02736"
)
_CHENG = (
    "Cheng et al., Learned image compression with discretized Gaussian mixture likelihoods and attention modules, "
    "CVPR 2020, arXiv:2001.01568"
)
_KAMISLI = (
    "Kamisli et al., Variable-rate learned image compression with multi-objective optimization and "
    "quantization-reconstruction offsets, DCC 2024, arXiv:2402.18930"
)
_HE_2021 = "He et al., Checkerboard context model for efficient learned image compression, CVPR 2021, arXiv:2103.15306"
_HE_2022 = (
    "He et al., ELIC: Efficient learned image compression with unevenly grouped space-channel contextual adaptive "
    "coding, CVPR 2022, arXiv:2203.10886"
)

_ZOU = (
    "Zou et al., The devil is in the details: Window-based attention for image compression, CVPR 2022, "
    "arXiv:2203.08450"
)
_LIU = "Liu et al., Learned image compression with mixed transformer-CNN architectures, CVPR 2023, arXiv:2303.14978"

_HAN = (
    "Han et al., Causal context adjustment loss for learned image compression, NeurIPS 2024, arXiv:2410.04847"
)
_LU = "Lu et al., Learned image compression with dictionary-based entropy model, CVPR 2025, arXiv:2504.00496"

_JIANG = (
    "Jiang et al., MLIC++: Linear complexity multi-reference entropy modeling for learned image compression, ACM TOMM "
    "2025, arXiv:2307.15421"
)

_LI = "Li et al., Learned image compression with hierarchical progressive context modeling, ICCV 2025, arXiv:2507.19125"

_FENG = "Feng et al., Linear attention modeling for learned image compression, CVPR 2025, arXiv:2502.05741"


def _sizes(*runs: tuple[int, tuple[int, ...]]) -> dict[int, tuple[int, ...]]:
    """Sizes by quality: of the first few, then of the next few."""
    every = [size for count, size in runs for _ in range(count)]
    return dict(enumerate(every, 1))


def _files(stem: str, hashes: str) -> dict[int, str]:
    return {q: f"{stem}-{q}-{digits}.pth.tar" for q, digits in enumerate(hashes.split(), 1)}


@register_entry
def bmshj2018_factorized() -> ModelEntry:
    """Factorized prior: one learned density per channel. Qualities 1 to 8."""
    return ModelEntry(
        id="bmshj2018-factorized",
        architecture="FactorizedPrior",
        sizes=_sizes((5, (128, 192)), (3, (192, 320))),
        paper=_BALLE,
        lmbda=_LMBDA,
        weights={
            "mse": _files(
                "bmshj2018-factorized-prior",
                "446d5c7f 87279a02 5c6f152b 1ed4405a 866ba797 9b02ea3a 6dfd6734 5232faa3",
            ),
            "ms-ssim": _files(
                "bmshj2018-factorized-ms-ssim",
                "9781d705 4a584386 5352f123 4f91b847 b3a88897 ee028763 8c265a29 8811bd14",
            ),
        },
    )


@register_entry
def bmshj2018_factorized_relu() -> ModelEntry:
    """Factorized prior with ReLU instead of GDN. Qualities 1 to 8; no weights were published."""
    return ModelEntry(
        id="bmshj2018-factorized-relu",
        architecture="FactorizedPriorReLU",
        sizes=_sizes((5, (128, 192)), (3, (192, 320))),
        paper=_BALLE,
    )


@register_entry
def bmshj2018_hyperprior() -> ModelEntry:
    """Scale hyperprior. Qualities 1 to 8."""
    return ModelEntry(
        id="bmshj2018-hyperprior",
        architecture="ScaleHyperprior",
        sizes=_sizes((5, (128, 192)), (3, (192, 320))),
        paper=_BALLE,
        lmbda=_LMBDA,
        weights={
            "mse": _files(
                "bmshj2018-hyperprior",
                "7eb97409 93677231 6d87be32 de1b779c f8b614e1 1ab9c41e 3804dcbd a583f0cf",
            ),
            "ms-ssim": _files(
                "bmshj2018-hyperprior-ms-ssim",
                "5cf249be 1ff60d1f 92dd7878 4377354e c34afc8d 3a6d8229 8747d3bc cc15b5f3",
            ),
        },
    )


@register_entry
def mbt2018_mean() -> ModelEntry:
    """Mean-scale hyperprior. Qualities 1 to 8."""
    return ModelEntry(
        id="mbt2018-mean",
        architecture="MeanScaleHyperprior",
        sizes=_sizes((4, (128, 192)), (4, (192, 320))),
        paper=_MINNEN,
        lmbda=_LMBDA,
        weights={
            "mse": _files(
                "mbt2018-mean", "e522738d e54a039d 723404a8 6dba02a3 d504e8eb a19628ab d5d441d1 8089ae3e"
            ),
            "ms-ssim": _files(
                "mbt2018-mean-ms-ssim",
                "5bf9c0b6 e2a1bf3f 640ce819 12626c13 1be7f059 b83bf379 ddf9644c 0cc7b94f",
            ),
        },
    )


@register_entry
def mbt2018() -> ModelEntry:
    """Mean-scale hyperprior with an autoregressive context. Qualities 1 to 8."""
    return ModelEntry(
        id="mbt2018",
        architecture="JointAutoregressiveHierarchicalPriors",
        sizes=_sizes((4, (192, 192)), (4, (192, 320))),
        paper=_MINNEN,
        lmbda=_LMBDA,
        weights={
            "mse": _files(
                "mbt2018", "3f36cd77 43b70cdd 22901978 456e2af9 b4a046dd 7052e5ea 8ba2bf82 dd0097aa"
            ),
            "ms-ssim": _files(
                "mbt2018-ms-ssim", "2878436b c41cb208 d0dd64e8 a120e037 9b30e3b7 f8b3626f 16e6ff50 0cb49d43"
            ),
        },
    )


@register_entry
def cheng2020_anchor() -> ModelEntry:
    """Residual blocks and small kernels, autoregressive context. Qualities 1 to 6."""
    return ModelEntry(
        id="cheng2020-anchor",
        architecture="Cheng2020Anchor",
        sizes=_sizes((3, (128,)), (3, (192,))),
        paper=_CHENG,
        lmbda={metric: values[:6] for metric, values in _LMBDA.items()},
        weights={
            "mse": _files("cheng2020-anchor", "dad2ebff a29008eb e49be189 98b0b468 23852949 4c052b1a"),
            "ms-ssim": _files(
                "cheng2020_anchor-ms-ssim", "20f521db c7ff5812 c23e22d5 0e658304 c0a95e77 f2dc1913"
            ),
        },
    )


@register_entry
def cheng2020_attn() -> ModelEntry:
    """Like ``cheng2020-anchor``, with simplified attention. Qualities 1 to 6."""
    return ModelEntry(
        id="cheng2020-attn",
        architecture="Cheng2020Attention",
        sizes=_sizes((3, (128,)), (3, (192,))),
        paper=_CHENG,
        lmbda={metric: values[:6] for metric, values in _LMBDA.items()},
        weights={
            "mse": _files("cheng2020_attn-mse", "465f2b64 e0805385 2d07bbdf f7b0ccf2 26c8920e 730501f2"),
            "ms-ssim": _files(
                "cheng2020_attn-ms-ssim", "c5381d91 5dad201d 5c9be841 8b2f647e 5ca1f34c 216423ec"
            ),
        },
    )


@register_entry
def cheng2020_gmm() -> ModelEntry:
    """The whole model of the paper: attention, mixtures of three Gaussians. Qualities 1 to 6; no weights yet."""
    return ModelEntry(
        id="cheng2020-gmm",
        architecture="Cheng2020GMM",
        sizes=_sizes((3, (128,)), (3, (192,))),
        paper=_CHENG,
    )


@register_entry
def bmshj2018_hyperprior_vbr() -> ModelEntry:
    """Scale hyperprior of variable rate: one model for all qualities, trained for MSE."""
    return ModelEntry(
        id="bmshj2018-hyperprior-vbr",
        architecture="ScaleHyperpriorVbr",
        sizes={0: (192, 320)},
        paper=_KAMISLI,
        metrics=("mse",),
        lmbda={"mse": _LMBDA["mse"]},
        weights={"mse": {0: "bmshj2018-hyperprior-mse-vbr-cddd26be.pth.tar"}},
    )


@register_entry
def mbt2018_mean_vbr() -> ModelEntry:
    """Mean-scale hyperprior of variable rate: one model for all qualities, trained for MSE."""
    return ModelEntry(
        id="mbt2018-mean-vbr",
        architecture="MeanScaleHyperpriorVbr",
        sizes={0: (192, 320)},
        paper=_KAMISLI,
        metrics=("mse",),
        lmbda={"mse": _LMBDA["mse"]},
        weights={"mse": {0: "mbt2018-mean-mse-vbr-45d095e9.pth.tar"}},
    )


@register_entry
def mbt2018_vbr() -> ModelEntry:
    """Autoregressive model of variable rate: one model for all qualities, trained for MSE."""
    return ModelEntry(
        id="mbt2018-vbr",
        architecture="JointAutoregressiveHierarchicalPriorsVbr",
        sizes={0: (192, 320)},
        paper=_KAMISLI,
        metrics=("mse",),
        lmbda={"mse": _LMBDA["mse"]},
        weights={"mse": {0: "mbt2018-mse-vbr-f12581a1.pth.tar"}},
    )


@register_entry
def cheng2020_anchor_checkerboard() -> ModelEntry:
    """``cheng2020-anchor`` with a checkerboard context of two steps. One size; no weights were published."""
    return ModelEntry(
        id="cheng2020-anchor-checkerboard",
        architecture="Cheng2020AnchorCheckerboard",
        sizes={0: (192,)},
        paper=_HE_2021,
    )


@register_entry
def elic2022_official() -> ModelEntry:
    """ELIC as its authors describe it. One size; no weights were published."""
    return ModelEntry(
        id="elic2022-official", architecture="Elic2022Official", sizes={0: (192, 320)}, paper=_HE_2022
    )


@register_entry
def elic2022_chandelier() -> ModelEntry:
    """ELIC as implemented by Chandelier. One size; no weights were published."""
    return ModelEntry(
        id="elic2022-chandelier", architecture="Elic2022Chandelier", sizes={0: (192, 320)}, paper=_HE_2022
    )


@register_entry
def wacnn() -> ModelEntry:
    """Convolutions gated by attention within windows; slices of channels. One size; its authors have weights (STF)."""
    return ModelEntry(id="wacnn", architecture="WACNN", sizes={0: (192, 320)}, paper=_ZOU)


@register_entry
def stf() -> ModelEntry:
    """Swin transformers as transforms; slices of channels. One size; its authors have weights (STF)."""
    return ModelEntry(id="stf", architecture="SymmetricalTransFormer", sizes={0: (48,)}, paper=_ZOU)


@register_entry
def tcm() -> ModelEntry:
    """Convolutions and transformers side by side; slices of channels. Its authors have weights (LIC_TCM)."""
    return ModelEntry(id="tcm", architecture="TCM", sizes={0: (128, 320)}, paper=_LIU)


@register_entry
def cca() -> ModelEntry:
    """Activation-free blocks; slices of channels. Its authors have weights (LabShuHangGU/CCA)."""
    return ModelEntry(id="cca", architecture="CCA", sizes={0: (320,)}, paper=_HAN)


@register_entry
def dcae() -> ModelEntry:
    """Slices of channels that look up a learned dictionary. Its authors have weights (DCAE)."""
    return ModelEntry(id="dcae", architecture="DCAE", sizes={0: (192, 320)}, paper=_LU)


@register_entry
def mlic_plus_plus() -> ModelEntry:
    """Slices of channels on a checkerboard with contexts of several kinds. Its authors have weights (MLIC)."""
    return ModelEntry(id="mlic++", architecture="MLICPlusPlus", sizes={0: (192, 320)}, paper=_JIANG)


@register_entry
def lalic() -> ModelEntry:
    """ELIC's groups of channels with linear attention (RWKV). Its authors have weights (RwkvCompress)."""
    return ModelEntry(id="lalic", architecture="LALIC", sizes={0: (128, 320)}, paper=_FENG)


@register_entry
def hpcm() -> ModelEntry:
    """Latents from coarse to fine, contexts that go on. Its authors have weights (LIC-HPCM, ``HPCM_Base``)."""
    return ModelEntry(id="hpcm", architecture="HPCM", sizes={0: (256, 320)}, paper=_LI)


@register_entry
def hpcm_large() -> ModelEntry:
    """``hpcm`` with deeper networks. Its authors have weights (LIC-HPCM, ``HPCM_Large``)."""
    return ModelEntry(id="hpcm-large", architecture="HPCMLarge", sizes={0: (256, 320)}, paper=_LI)


def __getattr__(name: str) -> Any:
    # Made when asked for, and kept: scripts written for CompressAI add to them.
    globals()[name] = found = attribute(name, "image")
    return found
