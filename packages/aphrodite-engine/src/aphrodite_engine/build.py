"""Puts an engine together: from a configuration to something that steps."""

from collections.abc import Callable, Sequence

from aphrodite_kernels.backend import Backend, backend_for
from aphrodite_kernels.backends.cpu.cores import physical_cores

from aphrodite_engine.config import EngineConfig, ResolvedConfig
from aphrodite_engine.engine import Engine
from aphrodite_engine.execution.assembly import KVMemory, make_executor, make_runner
from aphrodite_engine.execution.device import choose_device
from aphrodite_engine.execution.limits import Limits
from aphrodite_engine.execution.memory import free_memory
from aphrodite_engine.execution.step_executor import StepExecutor
from aphrodite_engine.info import ModelInfo
from aphrodite_engine.kv import KVGroup, group_layers
from aphrodite_engine.loading.model import (
    LoadedModel,
    OpenModel,
    Progress,
    load_model,
    open_model,
)
from aphrodite_engine.loading.resolve import DTYPES, Machine, named_dtype, resolve
from aphrodite_engine.loading.source import find_model_path
from aphrodite_engine.profile import profiled
from aphrodite_engine.scheduling.intake import SchedulingLimits
from aphrodite_engine.scheduling.scheduler import TokenBudgetScheduler

Say = Callable[[str], None]


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
    resolved, budget = resolve(config, source.facts, _machine(backend))
    groups = group_layers(source.config.kv_specs)
    limits = _scheduling_limits(resolved, source.config.vocab_size, end_tokens)
    scheduler = TokenBudgetScheduler(groups, limits)
    say(str(budget))
    loaded = load_model(source, backend, resolved.max_model_len, _percentages(say))
    runner = make_runner(_executor(loaded, groups, resolved), backend)
    info = ModelInfo(
        name=config.model,
        path=resolved.path,
        architecture=source.model_type,
        max_model_len=resolved.max_model_len,
        vocab_size=source.config.vocab_size,
        num_blocks=resolved.num_blocks,
        block_size=resolved.block_size,
        backend=backend.summary,
        summary=str(budget),
    )
    parts = (scheduler, runner)
    return Engine(*(profiled(parts) if config.profile_steps else parts)), info


def _machine(backend: Backend) -> Machine:
    return Machine(
        device=str(backend.device),
        dtype=str(backend.dtype).removeprefix("torch."),
        free_memory=free_memory(backend.device),
        threads=physical_cores(),
    )


def _executor(
    loaded: LoadedModel, groups: tuple[KVGroup, ...], resolved: ResolvedConfig
) -> StepExecutor:
    return make_executor(
        loaded.model,
        loaded.source.config.vocab_size,
        loaded.backend,
        KVMemory(
            groups=groups,
            num_blocks=resolved.num_blocks,
            dtype=DTYPES[resolved.kv_cache_dtype],
        ),
        Limits(
            rows=resolved.max_num_seqs,
            tokens=resolved.max_num_batched_tokens,
            positions=resolved.max_model_len,
            block_size=resolved.block_size,
        ),
        eager=resolved.enforce_eager,
    )


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
