"""The memory of a CUDA device, measured: what loading took, and what the largest step takes.

The largest step is run once over the null block, which makes its kernels ready as well.
"""

import torch
from aphrodite_kernels.attention import AttentionMeta, KVCache

from aphrodite_engine.execution.limits import Limits
from aphrodite_engine.execution.memory import free_memory
from aphrodite_engine.loading.budget import MemoryUse
from aphrodite_engine.loading.resolve import LOGIT_COPIES
from aphrodite_engine.model import Model
from aphrodite_engine.model_input import ModelInput


class Gauge:
    """What this process takes of a device from now on."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        torch.cuda.empty_cache()
        self._free = free_memory(device)
        self._reserved = torch.cuda.memory_reserved(device)

    def read(self, activations: int) -> MemoryUse:
        """What is taken now, beside the activations of a step; and what was or would be free."""
        torch.cuda.empty_cache()
        taken = torch.cuda.memory_reserved(self._device) - self._reserved
        free = min(self._free, free_memory(self._device) + taken)
        return MemoryUse(free=free, weights=taken, activations=activations)


def peak_of_a_step(model: Model, limits: Limits, caches: tuple[KVCache, ...]) -> int:
    """Bytes that the largest step takes while it runs; `caches` have at least the null block."""
    device = caches[0].key.device
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run_largest_step(model, limits, caches)
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


@torch.inference_mode()
def run_largest_step(model: Model, limits: Limits, caches: tuple[KVCache, ...]) -> None:
    """As many tokens as a step has at most, logits for every row, and room to sample them."""
    hidden = model.forward(largest_step(limits, caches))
    logits = model.logits(hidden[: limits.rows])
    torch.empty((LOGIT_COPIES - 1, *logits.shape), dtype=torch.float32, device=logits.device)


def largest_step(limits: Limits, caches: tuple[KVCache, ...]) -> ModelInput:
    """Prompts as long as can be, all in the null block."""
    device = caches[0].key.device
    length = min(limits.tokens, limits.positions)
    tokens = min(limits.tokens, length * limits.rows)
    starts = torch.arange(0, tokens + length, length, dtype=torch.int32).clamp_(max=tokens)
    positions = torch.arange(tokens, dtype=torch.int32, device=device) % length
    meta = AttentionMeta(
        block_tables=torch.zeros(
            (len(starts) - 1, limits.blocks), dtype=torch.int32, device=device
        ),
        seq_lens=starts.diff().to(device),
        query_starts=starts.to(device),
        slots=positions.long() % limits.block_size,
        max_query=length,
        max_seq=length,
    )
    return ModelInput(
        tokens=torch.zeros(tokens, dtype=torch.int32, device=device),
        positions=positions,
        attention=(meta,) * len(caches),
        caches=caches,
    )
