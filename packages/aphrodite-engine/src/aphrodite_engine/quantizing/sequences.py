"""A forward pass over whole texts, in one step, without an engine.

Every layer attends within the step alone, so all layers of one kind share one cache.
"""

import torch
from aphrodite_kernels.attention import AttentionMeta, KVCache
from aphrodite_kernels.backend import Backend
from torch import Tensor

from aphrodite_engine.kv import KVSpec
from aphrodite_engine.model import ModelConfig
from aphrodite_engine.model_input import ModelInput

_BLOCK = 16


def input_of(sequences: Tensor, config: ModelConfig, backend: Backend) -> ModelInput:
    """Texts [B, L] of tokens as the input of a step."""
    count, length = sequences.shape
    device = backend.device
    blocks = -(-length // _BLOCK)
    tables = 1 + torch.arange(count * blocks, dtype=torch.int32, device=device).view(count, blocks)
    positions = torch.arange(length, dtype=torch.int32, device=device)
    starts = length * torch.arange(count + 1, dtype=torch.int32, device=device)
    offsets = (_BLOCK * tables[:, :1] + positions).flatten().long()
    meta = AttentionMeta(
        block_tables=tables,
        seq_lens=starts.diff(),
        query_starts=starts,
        slots=offsets,
        max_query=length,
        max_seq=length,
    )
    kinds = {spec: _cache(spec, 1 + count * blocks, backend) for spec in config.kv_specs}
    return ModelInput(
        tokens=sequences.to(device, torch.int32).flatten(),
        positions=positions.repeat(count),
        attention=(meta,) * len(config.kv_specs),
        caches=tuple(kinds[spec] for spec in config.kv_specs),
    )


def _cache(spec: KVSpec, blocks: int, backend: Backend) -> KVCache:
    shape = (blocks, _BLOCK, spec.kv_heads, spec.head_dim)
    key, value = torch.zeros((2, *shape), dtype=backend.dtype, device=backend.device)
    return KVCache(key, value)
