# pyright: basic
"""Attention of a step: requests with one query by one kernel, those with several by another."""

import torch
from torch import Tensor

from aphrodite_kernels.attention import AttentionMeta, AttentionSpec, KVCache
from aphrodite_kernels.backends.triton.attention_decode import decode_attention
from aphrodite_kernels.backends.triton.attention_meeting import meeting_on
from aphrodite_kernels.backends.triton.attention_prefill import prefill_attention
from aphrodite_kernels.backends.triton.attention_steady import steady_attention
from aphrodite_kernels.protocols import Attention


def attention_on(device: torch.device, *, overlapped: bool) -> Attention:
    """Implements protocols.Attention. Rows that belong to no request are not written."""
    meeting = meeting_on(device)

    def attention(q: Tensor, cache: KVCache, meta: AttentionMeta, spec: AttentionSpec) -> Tensor:
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        several = meta.max_query > 1
        if several:
            prefill_attention(q, cache, meta, spec, out, every=False, overlapped=overlapped)
        if not several or len(q) < meta.max_query * len(meta.seq_lens):  # some may have one
            decode_attention(q, cache, meta, spec, out, meeting, overlapped=overlapped)
        return out

    return attention


def steady_attention_on(*, overlapped: bool) -> Attention:
    """As `attention_on`; a row is rounded alike in any company and however its prompt is cut."""

    def attention(q: Tensor, cache: KVCache, meta: AttentionMeta, spec: AttentionSpec) -> Tensor:
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        steady_attention(q, cache, meta, spec, out, overlapped=overlapped)
        return out

    return attention
