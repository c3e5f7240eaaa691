"""Qwen3 (arXiv 2505.09388): Llama with norms on the heads of q and k."""

from dataclasses import replace

from aphrodite_engine.keys import Keys
from aphrodite_engine.model import Architecture, GgufDialect
from aphrodite_engine.models.llama import Config, read_decoder
from aphrodite_engine.models.qwen2 import with_upper_windows


def read_qwen3(keys: Keys) -> Config:
    """A `qwen3` configuration."""
    bias = keys.flag("attention_bias", default=False)
    config = with_upper_windows(keys, read_decoder(keys))
    return replace(config, qk_norm=True, qkv_bias=bias, output_bias=bias)


ARCHITECTURE = Architecture(read=read_qwen3, gguf=GgufDialect(architecture="qwen3"))
