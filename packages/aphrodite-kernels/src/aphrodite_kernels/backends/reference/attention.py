"""The paged cache: writing to it, and causal attention over it, one request at a time."""

import torch
from torch import Tensor

from aphrodite_kernels.attention import AttentionMeta, AttentionSpec, KVCache


def store_kv(k: Tensor, v: Tensor, cache: KVCache, slots: Tensor) -> None:
    """Write each token's key and value to its slot."""
    place = slots // cache.block_size, slots % cache.block_size
    for new, stored, scale in (
        (k, cache.key, cache.key_scale),
        (v, cache.value, cache.value_scale),
    ):
        if scale is None:
            stored[place] = new.to(stored.dtype)
        else:
            stored[place], scale[place] = quantize(new, stored.dtype)


def quantize(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """x [..., D] -> (in `dtype`, the scales [...] float32): the largest number becomes the largest.

    A vector of zeros gets the scale 1.
    """
    largest = torch.iinfo(dtype).max if dtype == torch.int8 else torch.finfo(dtype).max
    peak = x.float().abs().amax(-1)
    scale = peak / torch.full_like(peak, largest)  # by a number, a GPU would round twice
    scale = scale.where(scale > 0, 1.0)
    steps = x.float() / scale[..., None]
    return (steps.round() if dtype == torch.int8 else steps).to(dtype), scale


def gather_kv(stored: Tensor, scale: Tensor | None, place: tuple[Tensor, Tensor]) -> Tensor:
    """The vectors at (block, offset), each [S]: [S, Hkv, D] float32."""
    vectors = stored[place].float()
    return vectors if scale is None else vectors * scale[place][..., None]


def attention(q: Tensor, cache: KVCache, meta: AttentionMeta, spec: AttentionSpec) -> Tensor:
    """Map q [T, H, D] to [T, H, D]; rows that belong to no request become zero."""
    result = torch.zeros(q.shape, dtype=q.dtype, device=q.device)
    for request in range(len(meta.seq_lens)):
        start, stop = int(meta.query_starts[request]), int(meta.query_starts[request + 1])
        if start == stop:
            continue
        seq_len = int(meta.seq_lens[request])
        first_query = seq_len - (stop - start)
        # Keys before the first query's window may be gone: their block is not looked at.
        first_key = 0 if spec.window is None else max(0, first_query - spec.window + 1)
        keys = torch.arange(first_key, seq_len, device=q.device)
        queries = torch.arange(first_query, seq_len, device=q.device)
        block = meta.block_tables[request].long()[keys // cache.block_size]
        place = block, keys % cache.block_size
        result[start:stop] = attend(
            q[start:stop].float(),
            gather_kv(cache.key, cache.key_scale, place),
            gather_kv(cache.value, cache.value_scale, place),
            visible(queries, keys, spec.window),
            spec,
        ).to(q.dtype)
    return result


def visible(queries: Tensor, keys: Tensor, window: int | None) -> Tensor:
    """Positions [Q] and [S] -> [Q, S] bool: which query sees which key."""
    distance = queries[:, None] - keys[None, :]
    seen = distance >= 0
    return seen if window is None else seen & (distance < window)


def attend(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, spec: AttentionSpec) -> Tensor:
    """Attend with q [Q, H, D] to k and v [S, Hkv, D] where seen [Q, S]: [Q, H, D], all float32."""
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    scores = torch.einsum("qhd,shd->hqs", q, k) * spec.scale
    if spec.softcap is not None:
        scores = spec.softcap * torch.tanh(scores / spec.softcap)
    scores = scores.masked_fill(~seen, -torch.inf)
    if spec.sinks is not None:
        sinks = spec.sinks[:, None, None].expand(-1, len(q), 1)
        scores = torch.cat((scores, sinks), -1)
    weights = scores.softmax(-1)[..., : len(k)]
    return torch.einsum("hqs,shd->qhd", weights, v)
