"""What is benchmarked: where a model's weights come from, and the engine's options for them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from aphrodite_engine.loading.model import OpenModel
from random_checkpoint import random_exl3, random_gptq, random_q4_k_m, random_safetensors
from shapes import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFormat:
    """A way to store a model and its KV cache."""

    name: str
    open: Callable[[Shape, torch.device], OpenModel]
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Of EngineConfig."""
    open_plain: Callable[[Shape, torch.device], OpenModel] | None = None
    """The same numbers without quantisation; None: `open` again."""
    tolerance: float
    """Root mean square by which log-probabilities may differ from the oracle's, in nats."""
    half_arithmetic: bool = False
    """Products at twice the rate of bfloat16."""


FORMATS: Mapping[str, WeightFormat] = {
    each.name: each
    for each in (
        WeightFormat(name="bf16", open=random_safetensors, tolerance=0.03),
        WeightFormat(
            name="fp8",
            open=random_safetensors,
            options={"quantization": "fp8"},
            tolerance=0.15,
            half_arithmetic=True,
        ),
        WeightFormat(
            name="fp8-kv",
            open=random_safetensors,
            options={"kv_cache_dtype": "fp8"},
            tolerance=0.06,
        ),
        WeightFormat(
            name="q4_k_m",
            open=random_q4_k_m,
            open_plain=lambda shape, device: random_q4_k_m(shape, device, dequantized=True),
            tolerance=0.06,
        ),
        WeightFormat(name="gptq", open=random_gptq, tolerance=0.06),
        WeightFormat(name="exl3", open=random_exl3, tolerance=0.06),
    )
}
