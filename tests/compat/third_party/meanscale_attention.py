# In the style of published code: a known model with another analysis and synthesis transform.
import torch.nn as nn
from compressai.layers import GDN, AttentionBlock
from compressai.models.google import MeanScaleHyperprior
from compressai.models.utils import conv, deconv
from compressai.registry import register_model


@register_model("meanscale-attention")
class MeanScaleAttention(MeanScaleHyperprior):
    def __init__(self, N=16, M=24, **kwargs):
        super().__init__(N=N, M=M, **kwargs)

        self.g_a = nn.Sequential(
            conv(3, N),
            GDN(N),
            conv(N, N),
            GDN(N),
            AttentionBlock(N),
            conv(N, N),
            GDN(N),
            conv(N, M),
            AttentionBlock(M),
        )

        self.g_s = nn.Sequential(
            AttentionBlock(M),
            deconv(M, N),
            GDN(N, inverse=True),
            deconv(N, N),
            GDN(N, inverse=True),
            AttentionBlock(N),
            deconv(N, N),
            GDN(N, inverse=True),
            deconv(N, 3),
        )

    @property
    def downsampling_factor(self) -> int:
        return 2 ** (4 + 2)

    @classmethod
    def from_state_dict(cls, state_dict):
        N = state_dict["g_a.0.weight"].size(0)
        M = state_dict["g_a.7.weight"].size(0)
        net = cls(N, M)
        net.load_state_dict(state_dict)
        return net
