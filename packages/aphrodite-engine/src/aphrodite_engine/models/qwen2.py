"""Qwen2 (arXiv 2407.10671): Llama with biases on q, k and v, and windows on the upper layers."""

from dataclasses import replace

from aphrodite_engine.keys import Keys
from aphrodite_engine.layers.window import read_windows
from aphrodite_engine.model import Architecture, GgufDialect
from aphrodite_engine.models.llama import Config, read_decoder


def read_qwen2(keys: Keys) -> Config:
    """A `qwen2` configuration."""
    return replace(with_upper_windows(keys, read_decoder(keys)), qkv_bias=True)


def with_upper_windows(keys: Keys, config: Config) -> Config:
    """Windows on the layers from `max_window_layers` on, if `use_sliding_window` says so."""
    if not keys.flag("use_sliding_window", default=False):
        return config
    first = keys.integer("max_window_layers", 28)
    windows = read_windows(keys, len(config.windows), lambda layer: layer >= first)
    return replace(config, windows=windows)


ARCHITECTURE = Architecture(read=read_qwen2, gguf=GgufDialect(architecture="qwen2"))
