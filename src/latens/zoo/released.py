"""The models of this release."""

from latens.zoo.cards import ModelCard, register_card, unreleased

# A card stays when its weights leave the package: from then on they are fetched. These were never part of a release.
unreleased(
    {
        "latens-base-1": "bdf01f52bbdc60a20e4b4b252c6f299c90150be0d31bdcc7fb18f71d1a7b3c24",
        "latens-base-2": "53cedadf77eeceb3f2a9d82195d00cea8f7f507cb11d69a8846c9c765f7ce774",
        "latens-base-3": "e0df03d4596c3bad6e2ccd65b9ff1c90c34572fec374548388676bd23680209f",
        "latens-base-4": "1875ad8606a9addac84d4a644c437d524f2ea0e1d4aeca63d807ed0dd323f9a1",
        "latens-base-5": "5c634420a7531ceffd329231c66377acd30e948e339cac3f034317111c25f033",
        "latens-base-6": "9b87763966ac033e7b24b28066d5af27fcf835cb533dc4d1c5bd5abacf8ff558",
        "latens-video-1": "437d2833af52924ec9f6b9997dd8f5ee40e710c42a1224c1f47d229220b03f3b",
        "latens-video-2": "a74394f7da8914ed29efa0d085c46864228b5101acb3abb25e63dc20217c1aa1",
        "latens-video-3": "c32fe774cc8ebb1437692d4e93e5e483730301d3b2ed38e0960b24d364ba2bf2",
        "latens-video-4": "49fc3e28816e03b030cdf1f9322ba8ddd4d109161c44abe9f0654b1f6bc50f3c",
        "latens-video-5": "dbbda11457281130b9fb268a1d627bfce3a4e541869a21a62b52dc5c39939505",
    }
)

_PAPERS = (
    "Ballé et al. 2018 (arXiv:1802.01436)",
    "Minnen et al. 2018 (arXiv:1809.02736)",
    "Cui et al. 2021 (arXiv:2003.02150)",
    "Li et al. 2023 (arXiv:2302.14402)",
    "Jia et al. 2025 (arXiv:2502.20762)",
)


@register_card
def latens_eye_1() -> ModelCard:
    """The default architecture, trained for what people see, in integers."""
    return ModelCard(
        id="latens-eye-1",
        summary="Variable-rate hyperprior in depthwise-separable blocks with a two-step mean context, for the eye",
        file="latens-eye-1.safetensors",
        sha256="59126cb379ee74235e661a3ff645999bfed6640ef74133d207cbbd68b27a54d1",
        licence="Apache-2.0",
        papers=_PAPERS,
        training="latens-base-6, then 5,171 steps for SSIMULACRA2, MS-SSIM and squared error, 2 hours on one CPU",
        parameters=6_216_640,
        mac_per_pixel=(16_553, 16_611),
        quality_range=(0.060, 2.851),
        tune="eye",
    )


@register_card
def latens_psnr_1() -> ModelCard:
    """The default architecture, trained for squared error, in integers."""
    return ModelCard(
        id="latens-psnr-1",
        summary="Variable-rate hyperprior in depthwise-separable blocks with a two-step mean context, for PSNR",
        file="latens-psnr-1.safetensors",
        sha256="baa8a7f87f1c38dbc6cef0328232e83dfc442b867d7cfc323dc4e3fd0990d92e",
        licence="Apache-2.0",
        papers=_PAPERS,
        training="latens-base-6 in integers: 1,810 photographs, 43,327 steps of 8 crops, 9.2 hours on two CPUs",
        parameters=6_216_640,
        mac_per_pixel=(16_553, 16_611),
        quality_range=(0.052, 1.819),
    )


@register_card
def latens_video_6() -> ModelCard:
    """The default video model, in integers."""
    return ModelCard(
        id="latens-video-6",
        summary="Blocks moved, and what they leave as a change of the latent of latens-psnr-1, in integers",
        file="latens-video-6.safetensors",
        sha256="b75707fd799b33905987c642e4b69e20b3264abd063315179313dd1d814f1da4",
        licence="Apache-2.0",
        papers=(
            "Li et al. 2021 (arXiv:2109.15047)",
            "Li et al. 2023 (arXiv:2302.14402)",
            "Jia et al. 2025 (arXiv:2502.20762)",
        ),
        training="6,056 steps of 4 sequences of 3 clips and 1,842 photographs in motion",
        parameters=1_618_944,
        mac_per_pixel=(46_319, 34_450),
        quality_range=(0.024, 0.68),
        media="video",
        range_of="BasketballPass, a key frame in twelve",
    )
