"""The paged cache: writing to it, and causal attention over it, one request at a time."""

import torch
from torch import Tensor
from torch.nn import functional

from aphrodite_kernels.attention import AttentionMeta, AttentionSpec, KVCache

_EXTREMES = {
    torch.int8: (-127, 127),
    torch.uint8: (-8, 7),
    torch.float8_e4m3fn: (-448, 448),
    torch.float8_e5m2: (-57344, 57344),
}
"""The numbers between which a quantised cache can hold one."""


def store_kv(k: Tensor, v: Tensor, cache: KVCache, slots: Tensor) -> None:
    """Write each token's key and value to its slot."""
    place = slots // cache.block_size, slots % cache.block_size
    for new, stored, scale, fixed in (
        (k, cache.key, cache.key_scale, cache.key_fixed),
        (v, cache.value, cache.value_scale, cache.value_fixed),
    ):
        if scale is None:
            stored[place] = new.to(stored.dtype)
        else:
            stored[place], scale[place] = quantize(new, stored.dtype, fixed)


def quantize(x: Tensor, dtype: torch.dtype, fixed: float | None = None) -> tuple[Tensor, Tensor]:
    """x [..., D] -> (as a cache of `dtype` stores it, the scales [...] float32).

    fixed: all scales. None: the largest number of a vector becomes the largest that there is; of 4
    bits, -8. A vector of zeros then gets the scale 1, and one with a NaN or an infinity is NaN.
    """
    x = x.float()
    least, most = _EXTREMES[dtype]
    if fixed is None:
        peak = _peak(x, signed=dtype == torch.uint8)
        limit = least if dtype == torch.uint8 else most
        scale = peak / torch.full_like(peak, limit)  # by a number, a GPU would round twice
        scale = scale.masked_fill(scale == 0, 1.0).where(peak.isfinite(), torch.nan)
    else:
        scale = torch.full_like(x[..., 0], fixed)
    steps = (x / scale[..., None]).clamp(least, most)
    if dtype.is_floating_point:
        return steps.to(dtype), scale
    codes = steps.round().nan_to_num(0)
    return (_pack(codes) if dtype == torch.uint8 else codes.to(dtype)), scale


def _peak(x: Tensor, *, signed: bool) -> Tensor:
    """The largest magnitude of each vector; signed: the number that has it."""
    high, low = x.amax(-1), x.amin(-1)
    return torch.where(high >= -low, high, low if signed else -low)


def _pack(codes: Tensor) -> Tensor:
    """Whole numbers [..., D] from -8 to 7 -> [..., ceil(D / 2)] uint8."""
    codes = (functional.pad(codes, (0, codes.shape[-1] % 2)) + 8).to(torch.uint8)
    return codes[..., 0::2] | codes[..., 1::2] << 4


def gather_kv(
    stored: Tensor, scale: Tensor | None, place: tuple[Tensor, Tensor], size: int
) -> Tensor:
    """The vectors of `size` numbers at (block, offset), each [S]: [S, Hkv, D] float32."""
    vectors = stored[place]
    if stored.dtype == torch.uint8:
        halves = torch.stack((vectors & 15, vectors >> 4), -1).flatten(-2)
        vectors = halves[..., :size].float() - 8
    return vectors.float() if scale is None else vectors.float() * scale[place][..., None]


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
            gather_kv(cache.key, cache.key_scale, place, q.shape[2]),
            gather_kv(cache.value, cache.value_scale, place, q.shape[2]),
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
