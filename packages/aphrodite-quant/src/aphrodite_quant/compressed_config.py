"""The `quantization_config` of checkpoints in the words of compressed-tensors."""

from collections.abc import Sequence
from typing import Any

DYNAMIC_FLOATS = {
    "num_bits": 8,
    "type": "float",
    "strategy": "token",
    "symmetric": True,
    "dynamic": True,
}
"""Activations as eight-bit floats, scaled by what each token holds."""


def compressed_config(
    layout: str,
    weights: dict[str, Any],
    plain: Sequence[str],
    activations: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """All linear layers but `plain` in one way.

    Args:
        layout: name of the arrangement: pack-quantized, float-quantized, …
        weights: num_bits, type, strategy and what follows from it.
        plain: modules that were left alone.
        activations: how they are quantised by engines that do; None: not at all.
    """
    group = {
        "targets": ["Linear"],
        "weights": {"symmetric": True, "dynamic": False} | weights,
        "input_activations": activations,
        "output_activations": None,
        "format": layout,
    }
    return {
        "quant_method": "compressed-tensors",
        "format": layout,
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": list(plain),
        "kv_cache_scheme": None,
    }


def four_bit_floats(
    layout: str, strategy: str, group: int, scales: str, plain: Sequence[str]
) -> dict[str, Any]:
    """Weights as four-bit floats with a scale, of a type of PyTorch, for every `group` columns."""
    weights = {
        "num_bits": 4,
        "type": "float",
        "strategy": strategy,
        "group_size": group,
        "scale_dtype": f"torch.{scales}",
    }
    return compressed_config(layout, weights, plain)
