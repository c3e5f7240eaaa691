"""Rotary position embedding (arXiv 2104.09864): tables of cosines and sines.

`Rope` is read once from a configuration, in either spelling of Hugging Face: `rope_parameters`
(one object, or one per layer type) or the older `rope_theta` beside `rope_scaling`. Everything is
computed in float64 and rounded once.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aphrodite_engine.errors import ModelError
from aphrodite_engine.keys import Keys

Frequencies = NDArray[np.float64]


class Scaling(Protocol):
    """How a model stretches its rotary embedding to longer contexts."""

    @property
    def attention_factor(self) -> float:
        """Factor on cosines and sines."""
        ...

    def apply(self, frequencies: Frequencies, theta: float) -> Frequencies:
        """Angles per position [rotary / 2], scaled."""
        ...


@dataclass(frozen=True, slots=True)
class Rope:
    """A rotary embedding over the first `rotary` dimensions of a head."""

    rotary: int
    theta: float
    scaling: Scaling | None = None

    def table(self, positions: int, device: torch.device) -> Tensor:
        """[positions, 2, rotary / 2] float32: cosines, then sines."""
        exponents = np.arange(0, self.rotary, 2, dtype=np.float64) / self.rotary
        frequencies = self.theta**-exponents
        factor = 1.0
        if self.scaling is not None:
            frequencies = self.scaling.apply(frequencies, self.theta)
            factor = self.scaling.attention_factor
        angles = np.outer(np.arange(positions, dtype=np.float64), frequencies)
        table = np.stack((np.cos(angles), np.sin(angles)), axis=1) * factor
        return torch.tensor(table, dtype=torch.float32, device=device)


@dataclass(frozen=True, slots=True)
class Linear:
    """Positions divided by `factor` (arXiv 2306.15595)."""

    factor: float
    attention_factor: float = 1.0

    def apply(self, frequencies: Frequencies, theta: float) -> Frequencies:
        return frequencies / self.factor


@dataclass(frozen=True, slots=True)
class Divided:
    """Each frequency divided by a factor of its own: how GGUF carries that of Llama 3."""

    factors: tuple[float, ...]
    attention_factor: float = 1.0

    def apply(self, frequencies: Frequencies, theta: float) -> Frequencies:
        if len(self.factors) != len(frequencies):
            raise ModelError(
                f"the rotary embedding has {len(frequencies)} frequencies, "
                f"but the checkpoint has {len(self.factors)} factors for them"
            )
        return frequencies / np.array(self.factors)


@dataclass(frozen=True, slots=True)
class Llama3:
    """Long wavelengths divided by `factor`, short ones kept, those between blended."""

    factor: float
    low_frequency_factor: float
    high_frequency_factor: float
    original_positions: int
    attention_factor: float = 1.0

    def apply(self, frequencies: Frequencies, theta: float) -> Frequencies:
        turns = self.original_positions * frequencies / (2 * math.pi)
        span = self.high_frequency_factor - self.low_frequency_factor
        keep = np.clip((turns - self.low_frequency_factor) / span, 0, 1)
        return frequencies * (keep + (1 - keep) / self.factor)


@dataclass(frozen=True, slots=True)
class Yarn:
    """YaRN (arXiv 2309.00071): blended by the dimension, attention sharpened."""

    factor: float
    attention_factor: float
    original_positions: int
    beta_fast: float
    beta_slow: float
    truncate: bool

    def apply(self, frequencies: Frequencies, theta: float) -> Frequencies:
        half = len(frequencies)
        low, high = (
            self._dimension(self.beta_fast, theta, half),
            self._dimension(self.beta_slow, theta, half),
        )
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, 2 * half - 1)
        ramp = np.clip((np.arange(half) - low) / (max(high - low, 0.001)), 0, 1)
        return frequencies * ((1 - ramp) + ramp / self.factor)

    def _dimension(self, rotations: float, theta: float, half: int) -> float:
        """The dimension that makes `rotations` turns over the original context."""
        turns = self.original_positions / (rotations * 2 * math.pi)
        return half * math.log(turns) / math.log(theta)


def read_rope(
    keys: Keys, head_dim: int, *, layer_type: str | None = None, default_theta: float = 10000.0
) -> Rope:
    """The rotary embedding that a configuration describes.

    `layer_type` picks among several (`full_attention`, `sliding_attention`).
    """
    if "rope_parameters" in keys:
        parameters = keys.nested("rope_parameters")
        if layer_type is not None and layer_type in parameters:
            parameters = parameters.nested(layer_type)
        theta = parameters.number("rope_theta", keys.number("rope_theta", default_theta))
        scaled = parameters
    else:
        theta = keys.number("rope_theta", default_theta)
        scaled = keys.nested("rope_scaling") if "rope_scaling" in keys else Keys({}, keys.origin)
        parameters = keys
    rotary = int(head_dim * parameters.number("partial_rotary_factor", 1.0))
    if rotary % 2 or not 0 < rotary <= head_dim:
        raise ModelError(
            f"{keys.origin}: {rotary} of {head_dim} dimensions of a head would be rotated; "
            "expected an even number, not above the size of the head"
        )
    return Rope(rotary, theta, _read_scaling(scaled, keys))


def _read_scaling(parameters: Keys, keys: Keys) -> Scaling | None:
    kind = parameters.text("rope_type", parameters.text("type", "default"))
    if kind == "default":
        return None
    if kind not in _READERS:
        known = ", ".join(sorted(_READERS))
        raise parameters.wrong("rope_type", f"default or one of {known}")
    return _READERS[kind](parameters, keys)


def _linear(parameters: Keys, keys: Keys) -> Scaling:
    return Linear(parameters.number("factor"))


def _divided(parameters: Keys, keys: Keys) -> Scaling:
    return Divided(parameters.numbers("factors"))


def _llama3(parameters: Keys, keys: Keys) -> Scaling:
    return Llama3(
        factor=parameters.number("factor"),
        low_frequency_factor=parameters.number("low_freq_factor"),
        high_frequency_factor=parameters.number("high_freq_factor"),
        original_positions=_original_positions(parameters, keys),
    )


def _yarn(parameters: Keys, keys: Keys) -> Scaling:
    original = _original_positions(parameters, keys)
    factor = parameters.number("factor", keys.positive("max_position_embeddings") / original)
    if "attention_factor" in parameters:
        attention_factor = parameters.number("attention_factor")
    elif "mscale" in parameters and "mscale_all_dim" in parameters:
        attention_factor = _sharpening(factor, parameters.number("mscale"))
        attention_factor /= _sharpening(factor, parameters.number("mscale_all_dim"))
    else:
        attention_factor = _sharpening(factor, 1.0)
    return Yarn(
        factor=factor,
        attention_factor=attention_factor,
        original_positions=original,
        beta_fast=parameters.number("beta_fast", 32.0),
        beta_slow=parameters.number("beta_slow", 1.0),
        truncate=parameters.flag("truncate", default=True),
    )


def _sharpening(factor: float, scale: float) -> float:
    return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0


def _original_positions(parameters: Keys, keys: Keys) -> int:
    return parameters.positive(
        "original_max_position_embeddings", keys.positive("max_position_embeddings")
    )


_READERS: dict[str, Callable[[Keys, Keys], Scaling]] = {
    "linear": _linear,
    "divided": _divided,
    "llama3": _llama3,
    "yarn": _yarn,
}
