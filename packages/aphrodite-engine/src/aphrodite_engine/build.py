"""Puts an engine together: from a configuration to something that steps."""

from collections.abc import Sequence

import torch
from aphrodite_kernels.backend import Backend, backend_for

from aphrodite_engine.config import EngineConfig, ResolvedConfig
from aphrodite_engine.engine import Engine
from aphrodite_engine.execution.assembly import Blueprint, make_runner
from aphrodite_engine.execution.device import choose_device
from aphrodite_engine.info import ModelInfo
from aphrodite_engine.loading.fit import Say, fit_model, limits_of
from aphrodite_engine.loading.model import OpenModel, open_model
from aphrodite_engine.loading.resolve import named_dtype
from aphrodite_engine.loading.source import find_model_path
from aphrodite_engine.profile import profiled
from aphrodite_engine.scheduling.intake import SchedulingLimits
from aphrodite_engine.scheduling.scheduler import TokenBudgetScheduler


def build_engine(
    config: EngineConfig, end_tokens: Sequence[int], say: Say
) -> tuple[Engine, ModelInfo]:
    """Find, plan, load, allocate.

    Args:
        config: what the user asks for.
        end_tokens: end-of-text tokens of the model.
        say: takes progress, a line at a time.

    Raises:
        EngineError, QuantError, KernelError: see loading/errors.py.
    """
    source = open_model(find_model_path(config.model, config.revision, config.download_dir))
    device = choose_device(config.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # kernels are launched on the current one
    backend = backend_for(device, threads=config.threads, dtype=named_dtype(config.dtype))
    return engine_of(source, backend, config, end_tokens, say)


def engine_of(
    source: OpenModel, backend: Backend, config: EngineConfig, end_tokens: Sequence[int], say: Say
) -> tuple[Engine, ModelInfo]:
    """The engine of a model that is open already, wherever its weights come from.

    Raises:
        EngineError, QuantError, KernelError: see loading/errors.py.
    """
    if config.deterministic:
        backend = backend.deterministic()
    model = fit_model(source.quantized(config.quantization), backend, config, say)
    resolved = model.config
    limits = _scheduling_limits(resolved, source.config.vocab_size, end_tokens)
    scheduler = TokenBudgetScheduler(model.memory.groups, limits)
    blueprint = Blueprint(
        model=model.loaded.model,
        vocab_size=source.config.vocab_size,
        backend=backend,
        memory=model.memory,
        limits=limits_of(resolved),
        eager=resolved.enforce_eager,
    )
    runner = make_runner(blueprint.executor(), backend)
    info = ModelInfo(
        name=config.model,
        path=resolved.path,
        architecture=source.model_type,
        max_model_len=resolved.max_model_len,
        vocab_size=source.config.vocab_size,
        num_blocks=resolved.num_blocks,
        block_size=resolved.block_size,
        backend=backend.summary,
        summary=str(model.budget),
    )
    parts = (scheduler, runner)
    return Engine(*(profiled(parts) if config.profile_steps else parts)), info


def _scheduling_limits(
    resolved: ResolvedConfig, vocab_size: int, end_tokens: Sequence[int]
) -> SchedulingLimits:
    return SchedulingLimits(
        num_blocks=resolved.num_blocks,
        block_size=resolved.block_size,
        max_model_len=resolved.max_model_len,
        max_num_seqs=resolved.max_num_seqs,
        max_num_batched_tokens=resolved.max_num_batched_tokens,
        vocab_size=vocab_size,
        end_tokens=frozenset(end_tokens),
        policy=resolved.scheduling_policy,
        enable_prefix_caching=resolved.enable_prefix_caching,
        seed=resolved.seed,
    )
