"""Cases for deterministic backends (`Backend.deterministic`): a row's bits are its own.

Each compares rows computed together with the same rows computed in smaller company.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from aphrodite_kernels.attention import AttentionMeta, AttentionSpec
from aphrodite_kernels.testing.case import Case, Draw
from aphrodite_kernels.testing.heads import (
    QUANTIZED,
    attention_cache,
    attention_meta,
    quantized,
    stacked_heads,
    suffix,
)
from aphrodite_kernels.testing.kinds import WeightKind, weight_kinds

_ROWS = 150
_SPANS = ((0, 1), (3, 6), (20, 40), (60, 130))
"""Rows that are computed again without the others."""
_HEADS = (8, 2, 64)
_REQUESTS = ((1, 300), (70, 70), (1, 7), (40, 310), (1, 600))
"""(queries, keys) of each request."""
_SPECS = {
    "full": AttentionSpec(scale=0.125),
    "window-softcap": AttentionSpec(scale=0.3, window=270, softcap=5.0),
}


def company_cases() -> list[Case]:
    """Products, norms, attention, draws; of backends that are deterministic."""
    return list(_cases())


def _cases() -> Iterator[Case]:
    for kind in weight_kinds():
        if kind.company:
            yield Case(f"company-matmul-{kind.label}", partial(_check_matmul, kind=kind))
    yield Case("company-norm", _check_norm)
    yield Case("company-draw", _check_draw)
    for name, spec in _SPECS.items():
        yield Case(f"company-attention-{name}", partial(_check_attention, spec=spec))
    for dtype in QUANTIZED:
        run = partial(_check_attention, spec=_SPECS["full"], dtype=dtype)
        yield Case(f"company-attention{suffix(dtype)}", run)


def _same(whole: Callable[[slice], Tensor], rows: int, what: str) -> None:
    """A function of rows gives the same for parts of them."""
    together = whole(slice(0, rows))
    for first, last in _SPANS:
        part = whole(slice(first, last))
        wrong = (part != together[first:last]).flatten(1).any(1)
        assert not wrong.any(), (
            f"{what}: {int(wrong.sum())} of rows {first} to {last} differ without the others"
        )


def _check_matmul(draw: Draw, kind: WeightKind) -> None:
    backend = draw.backend
    weight = backend.prepare(kind.draw(96, 1536, draw.generator))
    if not backend.multiplies(weight):  # refused, as BackendError says
        return
    matmul = backend.matmul_for(weight)
    x, bias = draw.normal(_ROWS, 1536), draw.float32(96)
    _same(lambda rows: matmul(x[rows], weight, bias), _ROWS, "a product")


def _check_norm(draw: Draw) -> None:
    backend = draw.backend
    weight = draw.float32(640)
    x, residual = draw.normal(_ROWS, 640), draw.normal(_ROWS, 640)
    _same(lambda rows: backend.rms_norm(x[rows], weight, 1e-6), _ROWS, "a norm")
    _same(
        lambda rows: backend.add_rms_norm(x[rows], residual[rows], weight, 1e-6)[0],
        _ROWS,
        "a sum's norm",
    )


def _check_draw(draw: Draw) -> None:
    backend = draw.backend
    logits, uniform = draw.float32(_ROWS, 777), draw.float32(_ROWS).sigmoid()
    _same(lambda rows: backend.draw(logits[rows], uniform[rows])[0][:, None], _ROWS, "drawn tokens")


def _check_attention(draw: Draw, spec: AttentionSpec, dtype: torch.dtype | None = None) -> None:
    """All requests at once; each alone; each in chunks, the last of them a single query."""
    backend = draw.backend
    if dtype is not None and dtype not in backend.kv_dtypes:
        return
    meta = attention_meta(draw, _REQUESTS, 16)
    cache = attention_cache(draw, meta, _HEADS, spec.window)
    if dtype is not None:
        cache = quantized(cache, dtype)
    q, _, _ = stacked_heads(draw, int(meta.query_starts[-1]), _HEADS)
    together = backend.attention(q, cache, meta, spec)
    start = 0
    for request, (queries, keys) in enumerate(_REQUESTS):
        for first, last in {(0, queries), (0, max(1, queries // 3)), (queries - 1, queries)}:
            rows = slice(start + first, start + last)
            part = _part(meta, request, first, last, keys - queries)
            alone = backend.attention(q[rows], cache, part, spec)
            wrong = (alone != together[rows]).flatten(1).any(1)
            assert not wrong.any(), (
                f"{int(wrong.sum())} of queries {first} to {last} of request {request} differ "
                "without the others"
            )
        start += queries


def _part(meta: AttentionMeta, request: int, first: int, last: int, before: int) -> AttentionMeta:
    """Some queries of one request."""
    device = meta.seq_lens.device
    return replace(
        meta,
        block_tables=meta.block_tables[request : request + 1],
        seq_lens=torch.tensor([before + last], dtype=torch.int32, device=device),
        query_starts=torch.tensor([0, last - first], dtype=torch.int32, device=device),
        slots=meta.slots[:0],
        max_query=last - first,
        max_seq=before + last,
    )
