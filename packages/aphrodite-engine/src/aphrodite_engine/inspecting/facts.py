"""What a checkpoint holds and takes, from headers and one weight of each kind."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from aphrodite_kernels.backend import Backend, backend_for
from aphrodite_kernels.errors import KernelError
from aphrodite_kernels.layouts import PackedWeight
from aphrodite_quant import (
    Checkpoint,
    QuantError,
    Reader,
    find_format,
    format_name,
    open_checkpoint,
)

from aphrodite_engine.config import EngineConfig
from aphrodite_engine.errors import EngineError
from aphrodite_engine.execution.device import choose_device
from aphrodite_engine.execution.memory import block_bytes
from aphrodite_engine.inspecting.modules import StoredModule, stored_modules
from aphrodite_engine.inspecting.report import Inspection, Kind, Memory, ModuleCheck
from aphrodite_engine.inspecting.verify import Progress, check_module
from aphrodite_engine.kv import group_layers
from aphrodite_engine.loading.fit import machine_of
from aphrodite_engine.loading.model import OpenModel, model_of
from aphrodite_engine.loading.resolve import KV_DTYPES, resolve

_SAMPLE = 64
"""Rows of a weight that are prepared to see what a backend makes of it."""


def inspect_checkpoint(
    path: Path, config: EngineConfig, progress: Progress | None = None
) -> Inspection:
    """Look at a checkpoint as the device of `config` would run it.

    Args:
        path: a GGUF file or a directory.
        config: device, dtypes and lengths that are asked for.
        progress: called while every weight is decoded and multiplied; None: that is left out.

    Raises:
        EngineError, QuantError, KernelError: it cannot be opened, or the device not be used.
    """
    checkpoint = open_checkpoint(path)
    reader = find_format(checkpoint).reader(checkpoint)
    backend = backend_for(choose_device(config.device), threads=config.threads)
    modules = list(stored_modules(checkpoint.store))
    kinds, problems = _kinds(modules, checkpoint, reader, backend)
    model, notes = _model(checkpoint)
    memory = None
    if model is not None:
        memory = _memory(model, config, backend, notes)
    checks = None
    if progress is not None:
        checks = _checks(modules, checkpoint, reader, backend, progress)
        problems = [f"{check.module}: {check.problem}" for check in checks if check.problem]
    weights = sum(kind.count * math.prod(kind.shape) for kind in kinds)
    nbytes = sum(module.nbytes for module in modules)
    return Inspection(
        path=str(path),
        container=checkpoint.kind,
        format=format_name(checkpoint),
        architecture=_architecture(checkpoint),
        model_type=None if model is None else model.model_type,
        tensors=len(checkpoint.store.names()),
        weights=weights,
        nbytes=nbytes,
        bits=8 * nbytes / max(weights, 1),
        backend=backend.summary,
        kinds=kinds,
        memory=memory,
        notes=notes,
        checks=checks,
        problems=problems,
    )


def _architecture(checkpoint: Checkpoint) -> str | None:
    stated = checkpoint.config.get("architectures")
    if isinstance(stated, list) and stated:
        return str(stated[0])  # pyright: ignore[reportUnknownArgumentType]
    found = checkpoint.metadata.get("general.architecture", checkpoint.config.get("model_type"))
    return None if found is None else str(found)


def _model(checkpoint: Checkpoint) -> tuple[OpenModel | None, list[str]]:
    """The model that runs it, or why there is none."""
    try:
        return model_of(checkpoint), []
    except EngineError as error:
        return None, [str(error)]


def _memory(
    model: OpenModel, config: EngineConfig, backend: Backend, notes: list[str]
) -> Memory | None:
    """What it takes; None, and a note, if it does not fit."""
    try:
        resolved, budget = resolve(config, model.facts, machine_of(backend))
    except (EngineError, QuantError) as error:
        notes.append(str(error))
        return None
    groups = group_layers(model.config.kv_specs)
    size = resolved.block_size
    per_block = block_bytes(groups, size, KV_DTYPES[resolved.kv_cache_dtype])
    return Memory(
        free=budget.free,
        weights=budget.weights,
        activations=budget.activations,
        kv_cache=budget.kv_cache,
        kv_per_token=len(groups) * per_block // size,
        kv_cache_dtype=resolved.kv_cache_dtype,
        context=resolved.max_model_len,
        kv_tokens=budget.kv_positions,
    )


def _kinds(
    modules: Sequence[StoredModule], checkpoint: Checkpoint, reader: Reader, backend: Backend
) -> tuple[list[Kind], list[str]]:
    """Modules that are alike as one, and what is wrong with the first of each."""
    alike: dict[tuple[object, ...], list[StoredModule]] = {}
    for module in modules:
        key = (module.pattern, module.stored, module.largest.shape)
        alike.setdefault(key, []).append(module)
    kinds, problems = list[Kind](), list[str]()
    for group in alike.values():
        weight = None
        if not group[0].plain:
            try:
                weight = reader(checkpoint.store, group[0].name)
            except (QuantError, KernelError) as error:
                problems.append(str(error))
        kinds.append(_kind(group, weight, backend))
    return kinds, problems


def _kind(group: Sequence[StoredModule], weight: PackedWeight | None, backend: Backend) -> Kind:
    first = group[0]
    shape = list(first.largest.shape)
    if weight is not None:
        shape = [weight.out_features, weight.in_features]
    nbytes = sum(module.nbytes for module in group)
    return Kind(
        name=first.pattern,
        count=len(group),
        shape=shape,
        stored=first.stored,
        nbytes=nbytes,
        bits=8 * nbytes / max(len(group) * math.prod(shape), 1),
        layout=None if weight is None else type(weight).__name__,
        kernel=None if weight is None else _kernel(weight, backend),
    )


def _kernel(weight: PackedWeight, backend: Backend) -> str:
    """The backend and its layout; `reference` where it has no product of its own."""
    few = weight.rows(torch.arange(min(_SAMPLE, weight.out_features), device=weight.device))
    try:
        # Where transforms mix all rows, a few need the others as well, and have no kernel.
        prepared = backend.prepare(few if few.nbytes < weight.nbytes else weight)
    except KernelError:
        return "reference"
    if not backend.multiplies(prepared):
        return "reference"
    return f"{backend.name} {type(prepared).__name__}"


def _checks(
    modules: Sequence[StoredModule],
    checkpoint: Checkpoint,
    reader: Reader,
    backend: Backend,
    progress: Progress,
) -> list[ModuleCheck]:
    checks: list[ModuleCheck] = []
    for number, module in enumerate(modules):
        checks.append(check_module(module, checkpoint.store, reader, backend))
        progress(number + 1, len(modules))
    return checks
