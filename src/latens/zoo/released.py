"""The models of this release."""

from latens.zoo.cards import ModelCard, register_card


@register_card
def latens_base_2() -> ModelCard:
    """The default model, second set of weights."""
    return ModelCard(
        id="latens-base-2",
        summary="Variable-rate hyperprior in depthwise-separable blocks with a two-step mean context",
        file="latens-base-2.safetensors",
        sha256="53cedadf77eeceb3f2a9d82195d00cea8f7f507cb11d69a8846c9c765f7ce774",
        licence="Apache-2.0",
        papers=(
            "Ballé et al. 2018 (arXiv:1802.01436)",
            "Minnen et al. 2018 (arXiv:1809.02736)",
            "Cui et al. 2021 (arXiv:2003.02150)",
            "Li et al. 2023 (arXiv:2302.14402)",
            "Jia et al. 2025 (arXiv:2502.20762)",
        ),
        training="1,810 photographs of free wallpaper collections; 12,750 steps of 8 crops, 3.1 hours on two CPUs",
        parameters=6_216_640,
        mac_per_pixel=(16_553, 16_611),
        quality_range=(0.082, 1.984),
    )
