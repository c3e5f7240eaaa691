"""From what the user asked, what the model is and what the machine has, to what runs.

A pure function of three records. Choices nobody made are made here; what cannot be honoured is a
ConfigError that gives the numbers and says what to change.
"""

from bisect import bisect_right
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from aphrodite_quant import quantization_names

from aphrodite_engine.config import (
    DTYPE_NAMES,
    EngineConfig,
    ResolvedConfig,
    check_choice,
    check_config,
)
from aphrodite_engine.errors import ConfigError
from aphrodite_engine.execution.memory import block_bytes
from aphrodite_engine.kv import group_layers
from aphrodite_engine.loading.budget import Budget, MemoryUse, size_text
from aphrodite_engine.model import ModelConfig
from aphrodite_engine.scheduling.tables import blocks_needed

DTYPES = dict(zip(DTYPE_NAMES, (torch.float32, torch.bfloat16, torch.float16), strict=True))
KV_DTYPES = DTYPES | {
    "fp8_e4m3": torch.float8_e4m3fn,
    "fp8_e5m2": torch.float8_e5m2,
    "int8": torch.int8,
    "int4": torch.uint8,
}
_SAME = {"fp8": "fp8_e4m3", "bf16": "bfloat16"}
LOGIT_COPIES = 4
"""Logits in float32, and what sampling on a device makes of them at the same time."""
ROOMY = 64 << 30
"""Bytes free on a device that runs more requests at once: products of more rows take less energy
and unpack weights less often, but their logits take memory that a small device needs for KV."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What planning needs to know of a checkpoint."""

    path: str
    format: str
    """Quantisation format that claims it."""
    weight_bytes: int
    """That they take once they are loaded."""
    config: ModelConfig
    quantization: str | None = None
    """What plain weights are quantised to while they are loaded."""
    kv_cache: str | None = None
    """The numbers that its makers say a KV cache should hold; None: they say nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What planning needs to know of the machine."""

    device: str
    """`cpu` or `cuda:N`."""
    dtype: str
    """Of activations, as the backend computes them."""
    free_memory: int
    """Bytes, measured."""
    kv_dtypes: tuple[torch.dtype, ...]
    """That the backend can keep keys and values in."""
    threads: int

    @property
    def on_cpu(self) -> bool:
        return self.device == "cpu"


class Resolution(NamedTuple):
    """What runs, and what it takes."""

    config: ResolvedConfig
    budget: Budget


class Measured(NamedTuple):
    """What was found when the weights were loaded, and what was planned before."""

    use: MemoryUse
    planned: ResolvedConfig
    """No more than this is taken."""


def named_dtype(name: str) -> torch.dtype | None:
    """The dtype of activations that a configuration names; None: the backend's choice."""
    check_choice("dtype", name, ("auto", *DTYPES))
    return DTYPES.get(name)


def resolve(
    config: EngineConfig, model: ModelFacts, machine: Machine, measured: Measured | None = None
) -> Resolution:
    """Make every choice, or refuse.

    Args:
        config: what the user asks for.
        model: what planning needs to know of it.
        machine: what planning needs to know of it.
        measured: what is free and taken; None: nothing is loaded yet, so it is estimated.

    Raises:
        ConfigError: the model on this machine cannot do what is asked.
    """
    _check(config, model)
    rows = config.max_num_seqs or _rows(machine)
    tokens = config.max_num_batched_tokens or max(rows, 512 if machine.on_cpu else 8192)
    block = config.block_size or (16 if machine.on_cpu else 64)
    kv_dtype = _kv_dtype(config, model, machine)
    use = measured.use if measured else _estimate(model, machine, rows, tokens)
    if not machine.on_cpu:
        buffers = _device_buffers(config, model.config, machine, rows, block)
        use = replace(use, activations=use.activations + buffers)
    plan = _MemoryPlan(config, model.config, use, (rows, tokens), block, KV_DTYPES[kv_dtype])
    length, blocks = plan.context_and_blocks(measured.planned if measured else None)
    resolved = ResolvedConfig(
        model=config.model,
        path=model.path,
        device=machine.device,
        dtype=machine.dtype,
        kv_cache_dtype=kv_dtype,
        max_model_len=length,
        max_num_seqs=rows,
        max_num_batched_tokens=tokens,
        block_size=block,
        num_blocks=blocks,
        enable_prefix_caching=config.enable_prefix_caching,
        scheduling_policy=config.scheduling_policy,
        enforce_eager=config.enforce_eager,
        deterministic=config.deterministic,
        seed=config.seed,
        threads=config.threads or machine.threads,
    )
    return Resolution(resolved, plan.budget(length, blocks))


def _rows(machine: Machine) -> int:
    """Requests at once, where nobody says."""
    if machine.on_cpu:
        return 32
    return 512 if machine.free_memory >= ROOMY else 256


class _MemoryPlan:
    """How the free memory is divided."""

    def __init__(
        self,
        config: EngineConfig,
        model: ModelConfig,
        use: MemoryUse,
        batch: tuple[int, int],
        block_size: int,
        kv_dtype: torch.dtype,
    ) -> None:
        """`batch` is the most rows and tokens of a step."""
        self._config = config
        self._use = use
        self._rows, self._tokens = batch
        self._longest = model.max_position
        self._groups = group_layers(model.kv_specs)
        self._block_size = block_size
        self._block_bytes = block_bytes(self._groups, block_size, kv_dtype)

    def context_and_blocks(self, planned: ResolvedConfig | None) -> tuple[int, int]:
        """max_model_len and num_blocks, the null block included; no more than was planned."""
        available = self._available_blocks(granted=planned is not None)
        longest = bisect_right(range(1, self._longest + 1), available, key=self._needed)
        length = self._config.max_model_len or longest
        if not 0 < length <= longest:
            raise self._too_small(length or 1)
        wanted = self._rows * self._needed(length)
        if self._config.kv_cache_memory is not None:
            wanted = available
        blocks = min(wanted, available) + 1
        if planned is None:
            return length, blocks
        return min(length, planned.max_model_len), min(blocks, planned.num_blocks)

    def budget(self, length: int, blocks: int) -> Budget:
        """The table of what goes where."""
        requests = (blocks - 1) / self._needed(length)
        return Budget(
            free=self._use.free,
            utilization=self._config.gpu_memory_utilization,
            weights=self._use.weights,
            activations=self._use.activations,
            kv_cache=blocks * self._block_bytes,
            kv_positions=int(requests * length),
        )

    def _needed(self, length: int) -> int:
        """Blocks of one request of that length."""
        return blocks_needed(self._groups, self._block_size, length, self._tokens)

    def _usable(self) -> int:
        """Bytes for the KV cache."""
        usable = int(self._use.free * self._config.gpu_memory_utilization)
        return max(0, usable - self._use.weights - self._use.activations)

    def _available_blocks(self, *, granted: bool) -> int:
        """Blocks that there is memory for, the null block left out."""
        usable, asked = self._usable(), self._config.kv_cache_memory
        if asked is not None and granted:
            asked = min(asked, usable)
        elif asked is not None and asked > usable:
            raise ConfigError(
                f"kv_cache_memory is {size_text(asked)}, but {size_text(usable)} remain for it: "
                f"{self._division()}"
            )
        return max(0, (usable if asked is None else asked) // self._block_bytes - 1)

    def _too_small(self, length: int) -> ConfigError:
        needed = (self._needed(length) + 1) * self._block_bytes
        given = self._config.kv_cache_memory
        have = self._usable() if given is None else given
        cure = (
            "lower max_model_len or max_num_batched_tokens, use a smaller model, or free memory"
            if given is None
            else "raise kv_cache_memory, or lower max_model_len"
        )
        return ConfigError(
            f"one request of {length} tokens takes {size_text(needed)} of KV cache, but "
            f"{size_text(have)} remain for it ({self._division()}); {cure}"
        )

    def _division(self) -> str:
        return (
            f"of {size_text(self._use.free)} free memory "
            f"{self._config.gpu_memory_utilization:.0%} may be used, "
            f"{size_text(self._use.weights)} go to weights and "
            f"{size_text(self._use.activations)} to activations"
        )


def _estimate(model: ModelFacts, machine: Machine, rows: int, tokens: int) -> MemoryUse:
    """Activations: the widest rows of one block that live together, and logits."""
    logits = rows * model.config.vocab_size * 4 * (2 if machine.on_cpu else LOGIT_COPIES)
    return MemoryUse(
        free=machine.free_memory,
        weights=model.weight_bytes,
        activations=tokens * _widest_row(model.config, machine) + logits,
    )


def _device_buffers(
    config: EngineConfig, model: ModelConfig, machine: Machine, rows: int, block_size: int
) -> int:
    """Bytes of captured decoding steps, of the tokens and block tables of all rows, and of the
    repetitions in those tokens, which DRY reads.
    """
    captured = rows * (_widest_row(model, machine) + model.vocab_size * 4)
    length = config.max_model_len or model.max_position
    tables = len(group_layers(model.kv_specs)) * -(-length // block_size)
    return captured + (rows + 1) * (2 * length + tables) * 4


def _widest_row(model: ModelConfig, machine: Machine) -> int:
    """Bytes of one token's activations, where most live together."""
    return (6 * model.hidden_size + 3 * model.mlp_size) * DTYPES[machine.dtype].itemsize


def _kv_dtype(config: EngineConfig, model: ModelFacts, machine: Machine) -> str:
    """The name of the KV cache's dtype, if the backend has it."""
    if config.kv_cache_dtype == "auto":
        return _stated_kv_dtype(model, machine) or ("float16" if machine.on_cpu else machine.dtype)
    name = _SAME.get(config.kv_cache_dtype, config.kv_cache_dtype)
    if KV_DTYPES[name] not in machine.kv_dtypes:
        present = (name for name, dtype in KV_DTYPES.items() if dtype in machine.kv_dtypes)
        raise ConfigError(
            f"kv_cache_dtype is {config.kv_cache_dtype}, but the kernels for {machine.device} keep "
            f"keys and values in {', '.join(present)}; choose one of these, or auto"
        )
    return name


def _stated_kv_dtype(model: ModelFacts, machine: Machine) -> str | None:
    """What the checkpoint asks for; None: nothing, or what these kernels lack."""
    if model.kv_cache is None:
        return None
    name = _SAME.get(model.kv_cache, model.kv_cache)
    if name not in KV_DTYPES:
        raise ConfigError(
            f"{model.path} asks for a KV cache of {model.kv_cache}, which there is not; choose "
            f"one with kv_cache_dtype: {', '.join(KV_DTYPES)}"
        )
    return name if KV_DTYPES[name] in machine.kv_dtypes else None


def _other_format(asked: str, model: ModelFacts) -> str:
    names = ", ".join(quantization_names())
    cure = f"choose {names}, or leave it out" if model.format == "dense" else "leave it out"
    return (
        f"quantization is {asked}, but {model.path} is in the format {model.format}; {cure}: "
        f"plain weights can become {names} while they are loaded"
    )


def _check(config: EngineConfig, model: ModelFacts) -> None:
    check_config(config)
    if config.quantization not in (None, model.format, model.quantization):
        raise ConfigError(_other_format(config.quantization, model))
    if config.max_model_len is not None and config.max_model_len > model.config.max_position:
        raise ConfigError(
            f"max_model_len is {config.max_model_len}, but the model was made for "
            f"{model.config.max_position} tokens; lower it"
        )
