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
        quality_range=(0.053, 1.854),
    )


@register_card
def latens_video_4() -> ModelCard:
    """The default video model, fourth set of weights."""
    return ModelCard(
        id="latens-video-4",
        summary="Latents of latens-base-5 under the condition of the picture before, moved by blocks",
        file="latens-video-4.safetensors",
        sha256="49fc3e28816e03b030cdf1f9322ba8ddd4d109161c44abe9f0654b1f6bc50f3c",
        licence="Apache-2.0",
        papers=(
            "Li et al. 2021 (arXiv:2109.15047)",
            "Li et al. 2023 (arXiv:2302.14402)",
            "Jia et al. 2025 (arXiv:2502.20762)",
        ),
        training="latens-base-5, then 4,656 steps of 4 sequences of 3 clips and 1,842 photographs in motion",
        parameters=4_174_272,
        mac_per_pixel=(44_721, 32_851),
        quality_range=(0.027, 0.927),
        media="video",
        range_of="BasketballPass, a key frame in twelve",
    )
