"""Attention of decoding requests on one GPU: checked against the reference, then its walks timed.

    PYTHONPATH=packages/aphrodite-kernels/src python3 benchmarks/gpu/kernels/attention.py

--only picks sections: check, decode, steady. Shapes are those of an 8B model: 32 heads of 128, 8 of
keys. Times are of calls inside a CUDA graph over caches that are read in turn, as a captured step
makes them: the longest context is not known. A line is one batch, its walks fastest first in
microseconds: t64w4s3r2l1 is tiles of 64 positions, 4 warps, 3 stages, 2 programs a processor and
shares of a tile at least, `f` before it a walk that is folded. `*`: the one that is used; `steady`:
that of deterministic mode, which is checked alone.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache, partial

import torch
from aphrodite_kernels.attention import AttentionMeta, AttentionSpec, KVCache
from aphrodite_kernels.backends.reference.attention import attention, quantize
from aphrodite_kernels.backends.triton.attention_decode import decode_attention
from aphrodite_kernels.backends.triton.attention_meeting import Meeting, meeting_on
from aphrodite_kernels.backends.triton.attention_steady import steady_attention
from aphrodite_kernels.backends.triton.attention_walks import (
    Walk,
    folded_walk,
    plain_walk,
    walk_for,
)
from gauge import DEVICE, READ, Allowance, run_sections, timed
from torch import Tensor

ALLOWANCE = Allowance(80)
HEADS, PAIRS, SIZE, BLOCK = 32, 8, 128, 16
LIMIT = 2e-2
LONGEST = 32768
"""Positions of a captured step's contexts at most."""
ROTATED = 400e6
"""Bytes of caches that are read in turn."""
SPEC = AttentionSpec(scale=SIZE**-0.5)
BATCHES = (
    (1, 512),
    (8, 640),
    (32, 384),
    (32, 2048),
    (256, 640),
)
"""(requests, keys of each)."""
KINDS = (torch.bfloat16, torch.float8_e4m3fn)


@cache
def meeting() -> Meeting:
    return meeting_on(DEVICE)


def name_of(walk: Walk) -> str:
    name = "f" * walk.folded
    name += f"t{walk.tile}w{walk.num_warps}s{walk.num_stages}r{walk.resident}l{walk.least}"
    return name


def usual(kind: torch.dtype, requests: int) -> Walk:
    heads = requests * PAIRS
    return walk_for(SIZE, kind, HEADS // PAIRS, BLOCK, heads, meeting().processors)


def walks_of(kind: torch.dtype) -> tuple[Walk, ...]:
    """Two of each way."""
    folded, plain = (
        folded_walk(kind.itemsize, HEADS // PAIRS),
        plain_walk(SIZE, kind.itemsize, HEADS // PAIRS),
    )
    return (
        folded,
        replace(folded, resident=6),
        plain,
        plain_walk(SIZE, kind.itemsize, HEADS // PAIRS, crowded=True),
    )


def cache_of(blocks: int, kind: torch.dtype) -> KVCache:
    key, value = torch.randn(2, blocks, BLOCK, PAIRS, SIZE, device=DEVICE, dtype=torch.bfloat16)
    if kind == torch.bfloat16:
        return KVCache(key, value)
    (key, key_scale), (value, value_scale) = (quantize(part, kind) for part in (key, value))
    return KVCache(key, value, key_scale, value_scale)


def meta_of(lengths: list[int], tables: Tensor) -> AttentionMeta:
    return AttentionMeta(
        block_tables=tables,
        seq_lens=torch.tensor(lengths, dtype=torch.int32, device=DEVICE),
        query_starts=torch.arange(len(lengths) + 1, dtype=torch.int32, device=DEVICE),
        slots=torch.zeros(len(lengths), dtype=torch.int64, device=DEVICE),
        max_query=1,
        max_seq=LONGEST,
    )


def batch_of(lengths: list[int]) -> tuple[int, AttentionMeta]:
    """Blocks of the cache, and where each request's lie: in random order."""
    needed = [-(-length // BLOCK) for length in lengths]
    blocks = torch.randperm(sum(needed), device=DEVICE).int() + 1
    tables = torch.zeros(len(lengths), max(needed), dtype=torch.int32, device=DEVICE)
    for table, owned in zip(tables, blocks.split(needed), strict=True):
        table[: len(owned)] = owned
    return sum(needed) + 1, meta_of(lengths, tables)


def decode(
    q: Tensor, cache: KVCache, meta: AttentionMeta, spec: AttentionSpec, walk: Walk
) -> Tensor:
    out = torch.empty(q.shape, dtype=q.dtype, device=DEVICE)
    decode_attention(q, cache, meta, spec, out, meeting(), walk)
    return out


def steady(q: Tensor, cache: KVCache, meta: AttentionMeta, spec: AttentionSpec) -> Tensor:
    out = torch.empty(q.shape, dtype=q.dtype, device=DEVICE)
    steady_attention(q, cache, meta, spec, out)
    return out


def variants(kind: torch.dtype) -> dict[str, Callable[..., Tensor]]:
    return {name_of(walk): partial(decode, walk=walk) for walk in walks_of(kind)}


def compiled(
    kind: torch.dtype, batch: tuple[int, AttentionMeta]
) -> dict[str, Callable[..., Tensor]]:
    """The variants that run."""
    cache, q = cache_of(batch[0], kind), queries(len(batch[1].seq_lens))
    every = variants(kind)
    fine = running({name: partial(call, q, cache, batch[1], SPEC) for name, call in every.items()})
    return {name: every[name] for name in fine}


def running(calls: dict[str, Callable[[], Tensor]]) -> dict[str, Callable[[], Tensor]]:
    """Those that run, after a first call each, on many cores."""

    def first(item: tuple[str, Callable[[], Tensor]]) -> bool:
        try:
            item[1]()
        except Exception as failure:
            print(f"{item[0]}: {type(failure).__name__}: {str(failure).splitlines()[0][:90]}")
            return False
        return True

    meeting()
    with ThreadPoolExecutor(12) as pool:
        fine = list(pool.map(first, calls.items()))
    torch.cuda.synchronize()
    meeting().arrivals.zero_()
    return {name: call for (name, call), ok in zip(calls.items(), fine, strict=True) if ok}


def queries(requests: int) -> Tensor:
    return torch.randn(requests, HEADS, SIZE, device=DEVICE, dtype=torch.bfloat16)


def check() -> None:
    """Every walk against the reference, twice, on unequal contexts; specs and kinds of cache."""
    lengths = [1, 700, 64, 65, 3000, 16, 129, 1, 1]
    blocks, meta = batch_of(lengths)
    q = queries(len(lengths))
    sinks = torch.linspace(-4, 8, HEADS, device=DEVICE)
    specs = {
        "full": SPEC,
        "window": AttentionSpec(SPEC.scale, window=100, sinks=sinks),
        "softcap": AttentionSpec(SPEC.scale, softcap=5.0),
    }
    calls: dict[str, Callable[[], Tensor]] = {}
    right: dict[str, Tensor] = {}
    for kind in (torch.bfloat16, torch.int8, torch.float8_e5m2, torch.float8_e4m3fn):
        cache = cache_of(blocks, kind)
        for name, spec in specs.items():
            expected = attention(q, cache, meta, spec).float()
            for variant, call in {**checked(kind, name), "steady": steady}.items():
                label = f"{kind} {name} {variant}"
                calls[label] = partial(call, q, cache, meta, spec)
                right[label] = expected
    for label, call in running(calls).items():
        worst = max(_error(call().float(), right[label]) for _ in range(2))
        print(f"check {label}: {'ok' if worst <= 1 else 'WRONG'}, {worst:.2f} of the limit")


def checked(kind: torch.dtype, spec: str) -> dict[str, Callable[..., Tensor]]:
    """Walks: those that are timed with the plain layer, one of each way with others."""
    if spec == "full" and kind in KINDS:
        return variants(kind)
    walks = {
        "folded": folded_walk(kind.itemsize, HEADS // PAIRS),
        "plain": plain_walk(SIZE, kind.itemsize, HEADS // PAIRS),
    }
    return {name: partial(decode, walk=walk) for name, walk in walks.items()}


def _error(actual: Tensor, expected: Tensor) -> float:
    excess = (actual - expected).abs() / (LIMIT + LIMIT * expected.abs())
    return float(excess.nan_to_num(torch.inf).max())


def check_steady() -> None:
    """A row's bits alone, in a crowd, in a whole prompt and in chunks of it."""
    length = 3000
    blocks, meta = batch_of([length])
    cache, q = cache_of(blocks, torch.bfloat16), queries(length)
    table = meta.block_tables

    def part(parts: list[tuple[int, int]]) -> Tensor:
        counts = torch.tensor([0, *(last - first for first, last in parts)], device=DEVICE)
        step = AttentionMeta(
            block_tables=table.expand(len(parts), -1).contiguous(),
            seq_lens=torch.tensor([last for _, last in parts], device=DEVICE).int(),
            query_starts=counts.cumsum(0).int(),
            slots=meta.slots,
            max_query=int(counts.max()),
            max_seq=LONGEST,
        )
        return steady(torch.cat([q[first:last] for first, last in parts]), cache, step, SPEC)

    whole = part([(0, length)])
    chunks = torch.cat(
        [part([(7, 9), (first, first + 500)])[2:] for first in range(0, length, 500)]
    )
    at = [0, 63, 64, 255, 256, 1000, 2048, 2999]
    crowd = part([(position, position + 1) for position in at])
    alone = torch.cat([part([(position, position + 1)]) for position in at])
    many = part([(position, position + 1) for position in at * 32])
    for name, rows, right in (
        ("chunks", chunks, whole),
        ("crowd", crowd, whole[at]),
        ("crowd of 256", many, whole[at * 32]),
        ("alone", alone, whole[at]),
    ):
        same = (rows == right).flatten(1).all(1).float().mean()
        print(f"steady {name}: {100 * float(same):.1f} % of rows equal bit for bit")


def time_decode() -> None:
    """Every batch, with caches of both kinds."""
    for kind in KINDS:
        calls = compiled(kind, batch_of([300, 600]))
        for requests, keys in BATCHES:
            if not ALLOWANCE.left:
                return
            compare(kind, requests, keys, calls)


def compare(
    kind: torch.dtype, requests: int, keys: int, calls: dict[str, Callable[..., Tensor]]
) -> None:
    """Print a line."""
    scales = 0 if kind.itemsize > 1 else 4
    moved = 2 * requests * keys * PAIRS * (SIZE * kind.itemsize + scales)
    blocks, meta = batch_of([keys] * requests)
    copies = max(1, min(64, round(ROTATED / moved)))
    caches = [cache_of(blocks, kind) for _ in range(copies)]
    q, floor = queries(requests), 1e6 * moved / READ
    results: list[tuple[float, str]] = []
    for name, call in calls.items():
        steps = [partial(call, q, each, meta, SPEC) for each in caches] * max(1, 16 // copies)
        chosen = "*" * (name == name_of(usual(kind, requests)))
        results.append((timed(steps), name + chosen))
    if not results:
        return
    results.sort()
    shown = "  ".join(f"{name} {spent:.1f}" for spent, name in results)
    best = results[0][0]
    rate = moved / best / 1e6
    print(f"{str(kind)[6:]} {requests}x{keys}: x{best / floor:.2f} of {floor:.1f}, "
          f"{rate:.2f} TB/s | {shown}", flush=True)  # fmt: skip


SECTIONS = {"check": check, "steady": check_steady, "decode": time_decode}


if __name__ == "__main__":
    run_sections(__doc__, SECTIONS, ALLOWANCE)
