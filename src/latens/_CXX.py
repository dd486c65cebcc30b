"""``pmf_to_quantized_cdf`` under the name that code written for CompressAI imports it from."""

from latens.entropy_coding import pmf_to_quantized_cdf

__all__ = ["pmf_to_quantized_cdf"]
