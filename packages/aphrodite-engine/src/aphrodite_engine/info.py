"""What a loaded model says of itself to those who serve it."""

import msgspec


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Facts of the running model; constant until the engine stops."""

    name: str
    """As the user gave it."""
    path: str
    """Local file or directory."""
    architecture: str
    """Hugging Face `model_type`."""
    max_model_len: int
    vocab_size: int
    num_blocks: int
    """KV blocks, the null block included."""
    block_size: int
    backend: str
    """One line: what computes."""
    summary: str
    """Memory budget, as a table for people."""
