"""Attention of prompts on one GPU: checked against the reference, then its tilings timed.

    PYTHONPATH=packages/aphrodite-kernels/src python3 benchmarks/gpu/kernels/prefill.py

--only picks sections: check, steady, time. Shapes are those of an 8B model: 32 heads of 128, 8 of
keys. Times are of calls inside a CUDA graph over caches that are read in turn. A line is one step,
its tilings fastest first in microseconds: r128t64w8s3 is 128 rows, tiles of 64 positions, 8 warps
and 3 stages, `d` before it tiles that the copy engine brings. `*`: the one that is used. The floor
is the arithmetic's, causal halves left out.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import torch
from aphrodite_kernels.attention import AttentionMeta, AttentionSpec, KVCache
from aphrodite_kernels.backends.reference.attention import attention, quantize
from aphrodite_kernels.backends.triton.attention_prefill import (
    PrefillTiling,
    prefill_attention,
    prefill_tiling,
)
from gauge import DEVICE, Allowance, line_of, run_sections, timed
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

ARITHMETIC = 780e12
"""Operations per second in bfloat16."""
ALLOWANCE = Allowance(85)
HEADS, PAIRS, SIZE, BLOCK = 32, 8, 128, 64
LIMIT = 2e-2
SPEC = AttentionSpec(scale=SIZE**-0.5)
TILINGS = tuple(
    PrefillTiling(*numbers)
    for numbers in (
        (128, 64, 8, 3),
        (128, 128, 8, 2),
        (128, 128, 8, 3),
        (64, 64, 4, 3),
        (64, 64, 4, 2),
        (64, 32, 4, 3),
        (128, 64, 4, 2, True),
        (128, 64, 4, 3, True),
        (64, 32, 4, 3, True),
        (64, 64, 4, 2, True),
        (128, 64, 8, 3, True),
    )
)
Batch = tuple[tuple[int, int], ...]
"""(queries, keys) of each request."""
STEPS: dict[str, Batch] = {
    "1x2048": ((2048, 2048),),
    "4x2048": ((2048, 2048),) * 4,
    "16x512": ((512, 512),) * 16,
    "1x8192": ((8192, 8192),),
    "8x512 of 4096": ((512, 4096),) * 8,
}
MIXED: Batch = ((1, 700), (130, 130), (1, 5), (513, 1025), (0, 0), (40, 2000), (7, 7))


@dataclass(frozen=True)
class Step:
    q: Tensor
    caches: list[KVCache]
    meta: AttentionMeta

    def outs(self) -> Tensor:
        return torch.empty(self.q.shape, dtype=self.q.dtype, device=DEVICE)


def step_of(batch: Batch, heads: tuple[int, int, int], kept: torch.dtype, copies: int = 1) -> Step:
    """Queries as heads of a stacked projection, caches of blocks in random order."""
    queries, pairs, size = heads
    needed = [-(-keys // BLOCK) for _, keys in batch]
    blocks = torch.randperm(sum(needed)) + 1
    tables = torch.zeros(len(batch), max(needed), dtype=torch.int32)
    for table, owned in zip(tables, blocks.split(needed), strict=True):
        table[: len(owned)] = owned
    starts = torch.tensor([0, *(count for count, _ in batch)]).cumsum(0)
    meta = AttentionMeta(
        block_tables=tables.to(DEVICE),
        seq_lens=torch.tensor([keys for _, keys in batch]).int().to(DEVICE),
        query_starts=starts.int().to(DEVICE),
        slots=torch.zeros(0, dtype=torch.int64, device=DEVICE),
        max_query=max(count for count, _ in batch),
        max_seq=max(keys for _, keys in batch),
    )
    shape = (sum(needed) + 1, BLOCK, pairs, size)
    stacked = torch.randn(int(starts[-1]), queries + 2 * pairs, size, device=DEVICE)
    caches = [_cache(shape, kept) for _ in range(copies)]
    return Step(stacked.bfloat16()[:, :queries], caches, meta)


def _cache(shape: tuple[int, ...], kept: torch.dtype) -> KVCache:
    key, value = (torch.randn(shape, device=DEVICE) for _ in range(2))
    if kept == torch.bfloat16:
        return KVCache(key.to(kept), value.to(kept))
    (key, key_scale), (value, value_scale) = quantize(key, kept), quantize(value, kept)
    return KVCache(key, value, key_scale, value_scale)


def name_of(tiling: PrefillTiling) -> str:
    sizes = f"r{tiling.rows}t{tiling.tile}w{tiling.num_warps}s{tiling.num_stages}"
    return "d" * tiling.described + sizes


def call(
    step: Step, cache: KVCache, spec: AttentionSpec, tiling: PrefillTiling | None, out: Tensor
) -> Tensor:
    prefill_attention(step.q, cache, step.meta, spec, out, every=True, tiling=tiling)
    return out


def check() -> None:
    """Kinds of caches, sizes of heads and specs against the reference."""
    heads = (HEADS, PAIRS, SIZE)
    sinks = torch.randn(HEADS, device=DEVICE)
    bfloat16, cases = torch.bfloat16, []
    for tiling in TILINGS:
        cases.append((name_of(tiling), heads, bfloat16, SPEC, tiling))
    rich = replace(SPEC, window=300, softcap=5.0, sinks=sinks)
    for kept in (torch.int8, torch.float8_e4m3fn, torch.float8_e5m2):
        cases.append((str(kept), heads, kept, rich, None))
    for other in ((9, 3, 64), (8, 2, 80), (8, 1, 256)):
        cases.append((f"heads {other}", other, bfloat16, replace(SPEC, window=100), None))
    for name, shape, kept, spec, tiling in cases:
        try:
            worst = _worst(step_of(MIXED, shape, kept), spec, tiling)
            verdict = "PASS" if worst <= 1 else "FAIL"
        except Exception as failure:
            worst, verdict = float("nan"), f"FAIL {line_of(failure)}"
        print(f"check {name}: worst {worst:.3f} of what is allowed  {verdict}", flush=True)


def _worst(step: Step, spec: AttentionSpec, tiling: PrefillTiling | None) -> float:
    cache = step.caches[0]
    expected = attention(step.q, cache, step.meta, spec).float()
    error = (call(step, cache, spec, tiling, step.outs()).float() - expected).abs()
    return float((error / (LIMIT * (1 + expected.abs()))).nan_to_num(9).max())


def steady() -> None:
    """Bits of rows in different company."""
    for kept in (torch.bfloat16, torch.float8_e4m3fn):
        for spec in (SPEC, replace(SPEC, window=300)):
            whole = step_of(((2048, 2048), (700, 1000)), (HEADS, PAIRS, SIZE), kept)
            cache = whole.caches[0]
            expected = call(whole, cache, spec, None, whole.outs())
            wrong = []
            for first, last in ((0, 1), (1, 2), (5, 300), (300, 301), (777, 2000), (2047, 2048)):
                part = _part(whole, first, last)
                if not torch.equal(
                    call(part, cache, spec, None, part.outs()), expected[first:last]
                ):
                    wrong.append((first, last))
            verdict = f"FAIL at {wrong}" if wrong else "PASS"
            print(f"steady {kept} window {spec.window}: {verdict}", flush=True)


def _part(whole: Step, first: int, last: int) -> Step:
    """Queries first to last of the first request, alone."""
    meta = replace(
        whole.meta,
        block_tables=whole.meta.block_tables[:1],
        seq_lens=torch.tensor([last], dtype=torch.int32, device=DEVICE),
        query_starts=torch.tensor([0, last - first], dtype=torch.int32, device=DEVICE),
    )
    return Step(whole.q[first:last], whole.caches, meta)


def floor_of(batch: Batch) -> tuple[float, float]:
    """Operations, and the microseconds they take."""
    pairs = sum(queries * keys - queries * (queries - 1) // 2 for queries, keys in batch)
    operations = 4.0 * HEADS * SIZE * pairs
    return operations, 1e6 * operations / ARITHMETIC


def time_section() -> None:
    for kept in (torch.bfloat16, torch.float8_e4m3fn):
        major = torch.cuda.get_device_capability()[0]
        usual = prefill_tiling(SIZE, torch.bfloat16, kept, BLOCK, major)
        tilings = list(dict.fromkeys((usual, *TILINGS)))
        failures = _compile(step_of(MIXED, (HEADS, PAIRS, SIZE), kept), tilings)
        for failure in failures.values():
            print(f"    failed {failure}", flush=True)
        for name, batch in STEPS.items():
            if not ALLOWANCE.left:
                return
            step = step_of(batch, (HEADS, PAIRS, SIZE), kept, copies=4)
            operations, floor = floor_of(batch)
            results = []
            for tiling in tilings:
                if tiling in failures:
                    continue
                calls = [
                    partial(call, step, cache, SPEC, tiling, step.outs()) for cache in step.caches
                ]
                mark = "*" if tiling == usual else ""
                results.append((timed(calls), name_of(tiling) + mark))
            if kept == torch.bfloat16 and name in ("1x2048", "1x8192"):
                results.extend(_vendors(batch[0][0]))
            results.sort()
            best = min(micros for micros, tiling in results if tiling.startswith(("r", "dr")))
            ranking = "  ".join(f"{tiling} {micros:.1f}" for micros, tiling in results)
            print(
                f"{name} {str(kept).removeprefix('torch.')} floor {floor:.1f} "
                f"(x{best / floor:.2f}, {operations / best / 1e6:.0f} TFLOP/s) | {ranking}",
                flush=True,
            )


def _compile(step: Step, tilings: list[PrefillTiling]) -> dict[PrefillTiling, str]:
    """First calls on many cores; what failed."""
    failures: dict[PrefillTiling, str] = {}

    def first(tiling: PrefillTiling) -> None:
        try:
            call(step, step.caches[0], SPEC, tiling, step.outs())
        except Exception as failure:
            failures[tiling] = f"{name_of(tiling)}: {line_of(failure)}"

    with ThreadPoolExecutor(8, initializer=torch.cuda.set_device, initargs=(0,)) as pool:
        list(pool.map(first, tilings))
    torch.cuda.synchronize()
    return failures


def _vendors(tokens: int) -> list[tuple[float, str]]:
    """Microseconds of torch's attention on contiguous heads."""
    q, k, v = (
        torch.randn(1, heads, tokens, SIZE, device=DEVICE, dtype=torch.bfloat16)
        for heads in (HEADS, PAIRS, PAIRS)
    )
    results = []
    for name, backend in (
        ("cudnn", SDPBackend.CUDNN_ATTENTION),
        ("flash", SDPBackend.FLASH_ATTENTION),
    ):
        try:
            with sdpa_kernel(backend):
                attend = partial(
                    torch.nn.functional.scaled_dot_product_attention,
                    q, k, v, is_causal=True, enable_gqa=True,
                )  # fmt: skip
                results.append((timed([attend] * 4), name))
        except Exception as failure:
            print(f"    {name} failed {line_of(failure)}")
    return results


SECTIONS: dict[str, Callable[[], None]] = {"check": check, "steady": steady, "time": time_section}


if __name__ == "__main__":
    run_sections(__doc__, SECTIONS, ALLOWANCE)
