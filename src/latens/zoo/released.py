"""The models of this release."""

from latens.zoo.cards import ModelCard, register_card


@register_card
def latens_base_6() -> ModelCard:
    """The default model, sixth set of weights."""
    return ModelCard(
        id="latens-base-6",
        summary="Variable-rate hyperprior in depthwise-separable blocks with a two-step mean context",
        file="latens-base-6.safetensors",
        sha256="9b87763966ac033e7b24b28066d5af27fcf835cb533dc4d1c5bd5abacf8ff558",
        licence="Apache-2.0",
        papers=(
            "Ballé et al. 2018 (arXiv:1802.01436)",
            "Minnen et al. 2018 (arXiv:1809.02736)",
            "Cui et al. 2021 (arXiv:2003.02150)",
            "Li et al. 2023 (arXiv:2302.14402)",
            "Jia et al. 2025 (arXiv:2502.20762)",
        ),
        training="1,810 photographs of free wallpaper collections; 43,327 steps of 8 crops, 9.2 hours on two CPUs",
        parameters=6_216_640,
        mac_per_pixel=(16_553, 16_611),
        quality_range=(0.052, 1.819),
    )


@register_card
def latens_video_5() -> ModelCard:
    """The default video model, fifth set of weights."""
    return ModelCard(
        id="latens-video-5",
        summary="Latents of latens-base-6 under the condition of the picture before, moved by blocks",
        file="latens-video-5.safetensors",
        sha256="dbbda11457281130b9fb268a1d627bfce3a4e541869a21a62b52dc5c39939505",
        licence="Apache-2.0",
        papers=(
            "Li et al. 2021 (arXiv:2109.15047)",
            "Li et al. 2023 (arXiv:2302.14402)",
            "Jia et al. 2025 (arXiv:2502.20762)",
        ),
        training="latens-base-6, then 6,056 steps of 4 sequences of 3 clips and 1,842 photographs in motion",
        parameters=4_174_272,
        mac_per_pixel=(44_721, 32_851),
        quality_range=(0.026, 0.904),
        media="video",
        range_of="BasketballPass, a key frame in twelve",
    )
