"""Loads a model and gives it a KV cache: as planned, or less where memory turns out to be short."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec
import torch
from aphrodite_kernels.attention import KVCache
from aphrodite_kernels.backend import Backend
from aphrodite_kernels.backends.cpu.cores import physical_cores
from aphrodite_quant import CacheScales, is_cache_scale, read_cache_scales

from aphrodite_engine.config import EngineConfig, ResolvedConfig
from aphrodite_engine.execution.assembly import KVMemory
from aphrodite_engine.execution.limits import Limits
from aphrodite_engine.execution.memory import allocate_caches, allocate_most, free_memory
from aphrodite_engine.kv import KVGroup, group_layers
from aphrodite_engine.loading.budget import Budget, size_text
from aphrodite_engine.loading.measure import Gauge, peak_of_a_step
from aphrodite_engine.loading.model import LoadedModel, OpenModel, Progress, load_model
from aphrodite_engine.loading.resolve import KV_DTYPES, Machine, Measured, Resolution, resolve
from aphrodite_engine.scheduling.tables import blocks_needed

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class FittedModel:
    """A model in memory, with room for what it computes."""

    loaded: LoadedModel
    memory: KVMemory
    config: ResolvedConfig
    budget: Budget


def fit_model(source: OpenModel, backend: Backend, config: EngineConfig, say: Say) -> FittedModel:
    """Plan, load, measure, allocate.

    Raises:
        EngineError, QuantError, KernelError: see loading/errors.py.
    """
    groups, device = group_layers(source.config.kv_specs), backend.device
    gauge = Gauge(device) if device.type == "cuda" else None
    machine = machine_of(backend)
    planned = resolve(config, source.facts, machine)
    say(str(planned.budget))
    loaded = _load(source, backend, planned.config.max_model_len, say)
    settled = planned
    if gauge is not None:
        null_block = _allocate(
            groups, msgspec.structs.replace(planned.config, num_blocks=1), device
        )
        use = gauge.read(peak_of_a_step(loaded.model, limits_of(planned.config), null_block))
        settled = resolve(config, source.facts, machine, Measured(use, planned.config))
    caches = _allocate(groups, settled.config, device)
    settled = _with_blocks(settled, len(caches[0].key))
    if settled.config.num_blocks < planned.config.num_blocks:
        say(_less(planned, settled))
    caches = _with_scales(caches, source, settled.config.kv_cache_dtype, say)
    return FittedModel(loaded, KVMemory(groups=groups, caches=caches), *settled)


def limits_of(resolved: ResolvedConfig) -> Limits:
    """By which buffers are sized."""
    return Limits(
        rows=resolved.max_num_seqs,
        tokens=resolved.max_num_batched_tokens,
        positions=resolved.max_model_len,
        block_size=resolved.block_size,
    )


def machine_of(backend: Backend) -> Machine:
    """What planning needs to know of this machine."""
    return Machine(
        device=str(backend.device),
        dtype=str(backend.dtype).removeprefix("torch."),
        free_memory=free_memory(backend.device),
        kv_dtypes=backend.kv_dtypes,
        threads=physical_cores(),
    )


def _load(source: OpenModel, backend: Backend, positions: int, say: Say) -> LoadedModel:
    """The model; the time it took is said."""
    started = time.perf_counter()
    loaded = load_model(source, backend, positions, _percentages(say))
    seconds, size = time.perf_counter() - started, source.facts.weight_bytes
    say(f"loaded {size_text(size)} in {seconds:.1f} s ({size / seconds / 1e9:.1f} GB/s)")
    return loaded


def _allocate(
    groups: tuple[KVGroup, ...], resolved: ResolvedConfig, device: torch.device
) -> tuple[KVCache, ...]:
    """The KV cache: as large as resolved, or as the device has room for."""
    size, dtype = resolved.block_size, KV_DTYPES[resolved.kv_cache_dtype]
    longest, chunk = resolved.max_model_len, resolved.max_num_batched_tokens
    return allocate_most(
        lambda blocks: allocate_caches(groups, blocks, size, dtype, device),
        most=resolved.num_blocks,
        least=blocks_needed(groups, size, longest, chunk) + 1,
    )


def _with_scales(
    caches: tuple[KVCache, ...], source: OpenModel, dtype: str, say: Say
) -> tuple[KVCache, ...]:
    """The caches, with the scales that the checkpoint has for their layers."""
    store = source.checkpoint.store
    if not any(map(is_cache_scale, store.names())):
        return caches
    if KV_DTYPES[dtype] != torch.float8_e4m3fn:
        say(f"the checkpoint's scales for a KV cache of fp8_e4m3 are not used: it is {dtype}")
        return caches
    stored = read_cache_scales(store)
    fixed = (stored.get(layer, CacheScales()) for layer in range(len(caches)))
    return tuple(
        replace(cache, key_fixed=scales.key, value_fixed=scales.value)
        for cache, scales in zip(caches, fixed, strict=True)
    )


def _with_blocks(settled: Resolution, blocks: int) -> Resolution:
    """What was settled, with the blocks that there are."""
    config, budget = settled
    part = blocks / config.num_blocks
    return Resolution(
        msgspec.structs.replace(config, num_blocks=blocks),
        replace(
            budget,
            kv_cache=int(budget.kv_cache * part),
            kv_positions=int(budget.kv_positions * part),
        ),
    )


def _less(planned: Resolution, settled: Resolution) -> str:
    """Why the KV cache is smaller than planned."""
    before, now = planned.budget, settled.budget
    return (
        f"the KV cache holds {now.kv_positions} tokens instead of {before.kv_positions}: "
        f"free memory {size_text(now.free)} (planned with {size_text(before.free)}), "
        f"weights {size_text(now.weights)} ({size_text(before.weights)}), "
        f"activations {size_text(now.activations)} ({size_text(before.activations)})"
    )


def _percentages(say: Say) -> Progress:
    """Say every tenth part of the weights once."""
    said = -1

    def progress(read: int, total: int) -> None:
        nonlocal said
        tenth = 10 * read // max(total, 1)
        if tenth > said:
            said = tenth
            say(f"loading weights: {10 * tenth} %")

    return progress
