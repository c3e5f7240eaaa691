"""Mistral (arXiv 2310.06825): Llama with a sliding window on every layer, if any.

In GGUF files it calls itself `llama`.
"""

from dataclasses import replace

from aphrodite_engine.keys import Keys
from aphrodite_engine.layers.window import read_windows
from aphrodite_engine.model import Architecture
from aphrodite_engine.models.llama import Config, read_decoder


def read_mistral(keys: Keys) -> Config:
    """A `mistral` configuration."""
    config = read_decoder(keys)
    return replace(config, windows=read_windows(keys, len(config.windows), lambda layer: True))


ARCHITECTURE = Architecture(read=read_mistral, gguf_as="llama")
