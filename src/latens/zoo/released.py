"""The models of this release."""

from latens.zoo.cards import ModelCard, register_card


@register_card
def latens_base_5() -> ModelCard:
    """The default model, fifth set of weights."""
    return ModelCard(
        id="latens-base-5",
        summary="Variable-rate hyperprior in depthwise-separable blocks with a two-step mean context",
        file="latens-base-5.safetensors",
        sha256="5c634420a7531ceffd329231c66377acd30e948e339cac3f034317111c25f033",
        licence="Apache-2.0",
        papers=(
            "Ballé et al. 2018 (arXiv:1802.01436)",
            "Minnen et al. 2018 (arXiv:1809.02736)",
            "Cui et al. 2021 (arXiv:2003.02150)",
            "Li et al. 2023 (arXiv:2302.14402)",
            "Jia et al. 2025 (arXiv:2502.20762)",
        ),
        training="1,810 photographs of free wallpaper collections; 33,350 steps of 8 crops, 7.4 hours on two CPUs",
        parameters=6_216_640,
        mac_per_pixel=(16_553, 16_611),
        quality_range=(0.054, 1.869),
    )


@register_card
def latens_video_3() -> ModelCard:
    """The default video model, third set of weights."""
    return ModelCard(
        id="latens-video-3",
        summary="Latents of latens-base-4 under the condition of the picture before, moved by blocks",
        file="latens-video-3.safetensors",
        sha256="c32fe774cc8ebb1437692d4e93e5e483730301d3b2ed38e0960b24d364ba2bf2",
        licence="Apache-2.0",
        papers=(
            "Li et al. 2021 (arXiv:2109.15047)",
            "Li et al. 2023 (arXiv:2302.14402)",
            "Jia et al. 2025 (arXiv:2502.20762)",
        ),
        training="latens-base-4, then 3,256 steps of 4 sequences of 3 clips and 1,842 photographs in motion",
        parameters=4_174_272,
        mac_per_pixel=(44_721, 32_851),
        quality_range=(0.027, 0.937),
        media="video",
        range_of="BasketballPass, a key frame in twelve",
    )
