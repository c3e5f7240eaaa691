"""Readers for community-quantised checkpoints: GGUF, safetensors, and the formats in them."""

from aphrodite_quant.checkpoint import Checkpoint, open_checkpoint
from aphrodite_quant.containers.gguf_header import MetadataValue
from aphrodite_quant.containers.store import TensorInfo, TensorStore
from aphrodite_quant.errors import (
    CheckpointError,
    ContainerError,
    FormatError,
    QuantError,
    TensorError,
)
from aphrodite_quant.format import Format, find_format, format_names
from aphrodite_quant.weights import Weights

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "ContainerError",
    "Format",
    "FormatError",
    "MetadataValue",
    "QuantError",
    "TensorError",
    "TensorInfo",
    "TensorStore",
    "Weights",
    "find_format",
    "format_names",
    "open_checkpoint",
]
