# In the style of published code: an autoregressive model coded position by position, in lists.
import warnings

import torch
import torch.nn.functional as F
from compressai.ans import BufferedRansEncoder, RansDecoder
from compressai.models.priors import JointAutoregressiveHierarchicalPriors


class RasterModel(JointAutoregressiveHierarchicalPriors):
    def __init__(self, N=8, M=10):
        super().__init__(N=N, M=M)

    def compress(self, x):
        if next(self.parameters()).device != torch.device("cpu"):
            warnings.warn("slow on GPU", stacklevel=2)
        y = self.g_a(x)
        z = self.h_a(y)
        z_strings = self.entropy_bottleneck.compress(z)
        z_hat = self.entropy_bottleneck.decompress(z_strings, z.size()[-2:])
        params = self.h_s(z_hat)
        padding = 2
        y_hat = F.pad(y, (padding,) * 4)
        y_strings = []
        for i in range(y.size(0)):
            encoder = BufferedRansEncoder()
            symbols, indexes = [], []
            for h, w, gaussian, crop in self.positions(params[i : i + 1], y_hat[i : i + 1]):
                scales, means = gaussian.chunk(2, 1)
                index = self.gaussian_conditional.build_indexes(scales)
                y_q = self.gaussian_conditional.quantize(
                    crop[:, :, padding, padding][..., None, None], "symbols", means
                )
                y_hat[i, :, h + padding, w + padding] = (y_q + means)[0, :, 0, 0]
                symbols.extend(y_q.squeeze().int().tolist())
                indexes.extend(index.squeeze().int().tolist())
            encoder.encode_with_indexes(
                symbols,
                indexes,
                self.gaussian_conditional.quantized_cdf.tolist(),
                self.gaussian_conditional.cdf_length.reshape(-1).int().tolist(),
                self.gaussian_conditional.offset.reshape(-1).int().tolist(),
            )
            y_strings.append(encoder.flush())
        return {"strings": [y_strings, z_strings], "shape": z.size()[-2:]}

    def positions(self, params, y_hat):
        masked_weight = self.context_prediction.weight * self.context_prediction.mask
        for h in range(params.size(2)):
            for w in range(params.size(3)):
                crop = y_hat[:, :, h : h + 5, w : w + 5]
                context = F.conv2d(crop, masked_weight, bias=self.context_prediction.bias)
                p = params[:, :, h : h + 1, w : w + 1]
                yield h, w, self.entropy_parameters(torch.cat((p, context), dim=1)), crop

    def decompress(self, strings, shape):
        z_hat = self.entropy_bottleneck.decompress(strings[1], shape)
        params = self.h_s(z_hat)
        y_hat = torch.zeros((z_hat.size(0), self.M, shape[0] * 4 + 4, shape[1] * 4 + 4))
        cdf = self.gaussian_conditional.quantized_cdf.tolist()
        cdf_lengths = self.gaussian_conditional.cdf_length.reshape(-1).int().tolist()
        offsets = self.gaussian_conditional.offset.reshape(-1).int().tolist()
        for i, y_string in enumerate(strings[0]):
            decoder = RansDecoder()
            decoder.set_stream(y_string)
            for h, w, gaussian, _ in self.positions(params[i : i + 1], y_hat[i : i + 1]):
                scales, means = gaussian.chunk(2, 1)
                index = self.gaussian_conditional.build_indexes(scales)
                rv = decoder.decode_stream(index.squeeze().int().tolist(), cdf, cdf_lengths, offsets)
                rv = torch.Tensor(rv).reshape(1, -1, 1, 1)
                y_hat[i, :, h + 2, w + 2] = self.gaussian_conditional.dequantize(rv, means)[0, :, 0, 0]
        return {"x_hat": self.g_s(F.pad(y_hat, (-2,) * 4)).clamp_(0, 1)}
