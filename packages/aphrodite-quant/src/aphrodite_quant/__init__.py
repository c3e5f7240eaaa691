"""Readers for community-quantised checkpoints: GGUF, safetensors, and the formats in them."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
    from aphrodite_quant.format import Format, find_format, format_name, format_names
    from aphrodite_quant.kv_cache import (
        CacheScales,
        is_cache_scale,
        read_cache_scales,
        stated_kv_cache,
    )
    from aphrodite_quant.quantization import (
        Quantization,
        find_quantization,
        quantization_names,
    )
    from aphrodite_quant.quantizer import Options, Quantizer, Statistics
    from aphrodite_quant.quantizer_registry import find_quantizer, quantizer_names
    from aphrodite_quant.reader import Reader
    from aphrodite_quant.weights import Weights

_HOME = {
    "CacheScales": "kv_cache",
    "Checkpoint": "checkpoint",
    "CheckpointError": "errors",
    "ContainerError": "errors",
    "Format": "format",
    "FormatError": "errors",
    "MetadataValue": "containers.gguf_header",
    "Options": "quantizer",
    "QuantError": "errors",
    "Quantization": "quantization",
    "Quantizer": "quantizer",
    "Reader": "reader",
    "Statistics": "quantizer",
    "TensorError": "errors",
    "TensorInfo": "containers.store",
    "TensorStore": "containers.store",
    "Weights": "weights",
    "find_format": "format",
    "find_quantization": "quantization",
    "find_quantizer": "quantizer_registry",
    "format_name": "format",
    "format_names": "format",
    "is_cache_scale": "kv_cache",
    "open_checkpoint": "checkpoint",
    "quantization_names": "quantization",
    "quantizer_names": "quantizer_registry",
    "read_cache_scales": "kv_cache",
    "stated_kv_cache": "kv_cache",
}

__all__ = [
    "CacheScales",
    "Checkpoint",
    "CheckpointError",
    "ContainerError",
    "Format",
    "FormatError",
    "MetadataValue",
    "Options",
    "QuantError",
    "Quantization",
    "Quantizer",
    "Reader",
    "Statistics",
    "TensorError",
    "TensorInfo",
    "TensorStore",
    "Weights",
    "find_format",
    "find_quantization",
    "find_quantizer",
    "format_name",
    "format_names",
    "is_cache_scale",
    "open_checkpoint",
    "quantization_names",
    "quantizer_names",
    "read_cache_scales",
    "stated_kv_cache",
]


def __getattr__(name: str) -> object:
    """Import on first use: who wants to know where a checkpoint lies must not wait for torch."""
    import importlib

    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
