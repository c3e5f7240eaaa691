"""Rotation and the cache on one GPU: checked against the reference, then timed.

    PYTHONPATH=packages/aphrodite-kernels/src python3 benchmarks/gpu/kernels/cache.py

--only picks sections: check, time. Heads are those of an 8B model, slices of one stacked product.
Times are of calls inside a CUDA graph over buffers that together exceed the L2 cache, in
microseconds, beside the floor of the bytes that must move.
"""

from collections.abc import Callable
from copy import deepcopy

import torch
from aphrodite_kernels.attention import KVCache, stored_size
from aphrodite_kernels.backends import reference
from aphrodite_kernels.backends.triton.store_kv import rotate_and_store_on
from gauge import DEVICE, READ, Allowance, run_sections, timed
from torch import Tensor

HEADS, PAIRS, SIZE, BLOCK_SIZE = 32, 8, 128, 16
POSITIONS = 8192
ROTATED = 200e6
"""Bytes of stacked products; the L2 cache has 50 MB."""
DTYPES = (torch.bfloat16, torch.int8, torch.float8_e4m3fn, torch.float8_e5m2, torch.uint8)
LIMIT = 2e-2
STEPS = {**dict.fromkeys(DTYPES[1:4], 0.05), torch.uint8: 0.8}
"""Between two neighbours, of vectors of normal numbers."""

op = rotate_and_store_on(overlapped=True)


def made_cache(dtype: torch.dtype, tokens: int) -> KVCache:
    shape = (tokens // BLOCK_SIZE + 2, BLOCK_SIZE, PAIRS, stored_size(SIZE, dtype))
    parts = [torch.zeros(shape, dtype=dtype, device=DEVICE) for _ in range(2)]
    quantized = dtype.itemsize == 1
    scales = [torch.ones(shape[:3], device=DEVICE) for _ in range(2 * quantized)]
    return KVCache(*parts, *scales)


def stacked(tokens: int) -> Tensor:
    width = (HEADS + 2 * PAIRS) * SIZE
    return torch.randn(tokens, width, device=DEVICE, dtype=torch.bfloat16)


def heads_of(product: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = torch.split(product, [HEADS * SIZE, PAIRS * SIZE, PAIRS * SIZE], 1)
    return q.view(-1, HEADS, SIZE), k.view(-1, PAIRS, SIZE), v.view(-1, PAIRS, SIZE)


def made_table() -> Tensor:
    angles = torch.rand(POSITIONS, SIZE // 2, device=DEVICE) * 6
    return torch.stack((angles.cos(), angles.sin()), 1)


def made_places(tokens: int) -> tuple[Tensor, Tensor]:
    positions = torch.randint(0, POSITIONS, (tokens,), device=DEVICE, dtype=torch.int32)
    return positions, torch.randperm(tokens, device=DEVICE) + BLOCK_SIZE


def check() -> None:
    """Queries and keys to rounding, values to the bit."""
    backend = reference.create(DEVICE, threads=None, dtype=torch.bfloat16)
    table = made_table()
    for dtype in DTYPES:
        for tokens in (1, 7, 300):
            ours, theirs = made_cache(dtype, tokens), made_cache(dtype, tokens)
            ours_of, positions, slots = stacked(tokens), *made_places(tokens)
            theirs_of = deepcopy(ours_of)
            for run, product, cache in (
                (op, ours_of, ours),
                (backend.rotate_and_store, theirs_of, theirs),
            ):
                q, k, v = heads_of(product)
                run(q, k, v, positions, table, cache, slots)
            queries = slice(0, HEADS * SIZE)
            worst = _excess(ours_of[:, queries], theirs_of[:, queries])
            keys = [_plain(each.key, each.key_scale) for each in (ours, theirs)]
            worst = max(worst, _excess(*keys, step=STEPS.get(dtype, 0.0)))
            same = torch.equal(*(_plain(each.value, each.value_scale) for each in (ours, theirs)))
            verdict = "PASS" if worst <= 1 and same else "FAIL"
            print(f"check {dtype} r{tokens}: {worst:.2f}, values equal: {same}: {verdict}")


def _plain(stored: Tensor, scale: Tensor | None) -> Tensor:
    if stored.dtype == torch.uint8:
        stored = torch.stack((stored & 15, stored >> 4), -1).flatten(-2).float() - 8
    return stored.float() if scale is None else stored.float() * scale[..., None]


def _excess(actual: Tensor, expected: Tensor, *, step: float = 0.0) -> float:
    """The error in what is allowed. step: the numbers may be next to each other, of few."""
    wide = expected.float()
    allowed = LIMIT * (1 + wide.abs()) + (wide.abs() / 4 + step if step else 0)
    return float(((actual.float() - wide).abs() / allowed).nan_to_num(9).max())


def times() -> None:
    table = made_table()
    for dtype in DTYPES[:3]:
        for tokens in (1, 16, 64, 256, 2048, 8192):
            cache, place = made_cache(dtype, tokens), made_places(tokens)
            moved = tokens * SIZE * (2 * 2 * HEADS + 2 * PAIRS * (2 + dtype.itemsize))
            size = tokens * (HEADS + 2 * PAIRS) * SIZE * 2
            products = [stacked(tokens) for _ in range(max(2, min(64, round(ROTATED / size))))]
            calls = [_call(product, table, cache, place) for product in products]
            micros = timed(calls)
            floor = 1e6 * moved / READ
            line = f"{dtype} r{tokens}: {micros:.1f}, floor {floor:.2f} (x{micros / floor:.1f})"
            print(line, flush=True)


def _call(
    product: Tensor, table: Tensor, cache: KVCache, place: tuple[Tensor, Tensor]
) -> Callable[[], Tensor]:
    q, k, v = heads_of(product)

    def call() -> Tensor:
        op(q, k, v, place[0], table, cache, place[1])
        return q

    return call


ALLOWANCE = Allowance(60)
SECTIONS = {"check": check, "time": times}


if __name__ == "__main__":
    run_sections(__doc__, SECTIONS, ALLOWANCE)
