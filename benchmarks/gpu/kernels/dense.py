"""Dense products on one GPU: each kernel checked against the reference, then its variants timed.

    PYTHONPATH=packages/aphrodite-kernels/src python3 benchmarks/gpu/kernels/dense.py

--only picks sections: check, chosen, chain, steady, vector, few, many. Shapes are those of an 8B
model. Times are of calls inside a CUDA graph over copies of the weight that together exceed the L2
cache several times. A line of a table is one shape at one number of rows, its variants fastest
first in microseconds. t16n64k128w4s4 is a Tiling; behind it /2: two programs a tile, *2: two a
processor.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial

import torch
from aphrodite_kernels.backends import reference
from aphrodite_kernels.backends.triton.dense import (
    STEADY_TILINGS,
    dense_matmul,
    steady_matmul,
    vendor,
)
from aphrodite_kernels.backends.triton.dense_stream import stream
from aphrodite_kernels.backends.triton.dense_tiles import Tiling, Workspace, workspace_on
from aphrodite_kernels.backends.triton.dense_vector import Cut, vector
from aphrodite_kernels.layouts import Dense
from gauge import DEVICE, READ, Allowance, line_of, run_sections, timed
from torch import Tensor

ARITHMETIC = 778e12
"""Operations per second in bfloat16."""
ALLOWANCE = Allowance(62)
ROTATED = 300e6
"""Bytes of copies of one weight."""
SHAPES = ((6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336))
HEAD = (128256, 4096)
LIMIT = 2e-2

Call = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Variant:
    name: str
    call: Call
    error: str = ""


@cache
def workspace() -> Workspace:
    return workspace_on(DEVICE)


@cache
def weights(shape: tuple[int, int]) -> list[Tensor]:
    copies = max(1, round(ROTATED / (2 * shape[0] * shape[1])))
    scale = shape[1] ** -0.5
    return [
        torch.randn(shape, device=DEVICE, dtype=torch.bfloat16).mul_(scale) for _ in range(copies)
    ]


@cache
def inputs(rows: int, width: int) -> Tensor:
    return torch.randn(rows, width, device=DEVICE, dtype=torch.bfloat16)


def floor_of(rows: int, shape: tuple[int, int]) -> float:
    """Microseconds."""
    columns, width = shape
    moved = 2 * (columns * width + rows * (columns + width))
    return 1e6 * max(moved / READ, 2 * rows * columns * width / ARITHMETIC)


def compiled(variants: list[Variant], shape: tuple[int, int], rows: int) -> list[Variant]:
    """The variants after a first call each, on many cores, with what they failed of."""

    def first(variant: Variant) -> Variant:
        try:
            variant.call(inputs(rows, shape[1]), weights(shape)[0])
        except Exception as failure:
            return replace(variant, error=line_of(failure))
        return variant

    inputs(rows, shape[1]), weights(shape), workspace()
    # Tensor descriptors are made in the context of a thread, which its first kernel brings about.
    with ThreadPoolExecutor(12, initializer=lambda: torch.zeros(1, device=DEVICE)) as pool:
        made = list(pool.map(first, variants))
    torch.cuda.synchronize()
    return made


def compare(shape: tuple[int, int], rows: int, variants: list[Variant], shown: int = 6) -> None:
    """Time the variants and cuBLAS, and print a line."""
    results: list[tuple[float, str]] = []
    failures: list[str] = []
    for variant in [Variant("cublas", lambda x, w: vendor(x, w, None)), *variants]:
        if not ALLOWANCE.left:
            break
        try:
            if variant.error:
                raise RuntimeError(variant.error)
            x = inputs(rows, shape[1])
            copies = weights(shape) * (4 if rows < 1024 else 1)
            results.append((timed([partial(variant.call, x, w) for w in copies]), variant.name))
        except Exception as failure:
            failures.append(f"{variant.name}: {line_of(failure)}")
    if not results:
        return
    results.sort()
    best = results[0][0]
    columns, width = shape
    rate = f"{2 * columns * width / best / 1e6:.2f} TB/s"
    if rows >= 64:
        rate = f"{2 * rows * columns * width / best / 1e6:.0f} TFLOP/s"
    cublas = next((f"{micros:.1f}" for micros, name in results if name == "cublas"), "-")
    ranking = "  ".join(f"{name} {micros:.1f}" for micros, name in results[:shown])
    floor = floor_of(rows, shape)
    print(
        f"{columns}x{width} r{rows} floor {floor:.1f} (x{best / floor:.2f}, {rate}) "
        f"cublas {cublas} | {ranking}",
        flush=True,
    )
    for failure in failures[:2]:
        print(f"    failed {failure}")


def cut_variant(cut: Cut) -> Variant:
    name = f"{cut.block_n}x{cut.block_k}w{cut.num_warps}"
    return Variant(name, lambda x, w: vector(x, w, None, cut))


def tiling_name(tiling: Tiling) -> str:
    shared = f"/{tiling.split}" if tiling.split else f"*{tiling.resident}"
    return (
        f"t{tiling.block_t}n{tiling.block_n}k{tiling.block_k}"
        f"w{tiling.num_warps}s{tiling.num_stages}{shared}"
    )


def tiling_variant(tiling: Tiling) -> Variant:
    return Variant(tiling_name(tiling), lambda x, w: stream(x, w, None, workspace(), tiling))


def check() -> None:
    """Every kernel against the reference."""
    cases: list[tuple[str, int, Callable[[Tensor, Tensor, Tensor | None], Tensor]]] = []
    for rows in (1, 3, 4):
        cases.append((f"vector r{rows}", rows, lambda x, w, b: vector(x, w, b, Cut(1, 1024, 4))))
    for rows, tiling in (
        (5, Tiling(16, 64, 128, 4, 4, split=0, resident=2)),
        (64, Tiling(64, 64, 128, 4, 4, split=0)),
        (130, Tiling(128, 128, 64, 8, 4, split=2)),
        (256, Tiling(256, 128, 64, 8, 4, split=0)),
        (300, Tiling(128, 256, 64, 8, 4, split=0)),
        (300, Tiling(256, 128, 64, 8, 4, split=1)),
    ):
        cases.append((f"{tiling_name(tiling)} r{rows}", rows, partial(_stream_with, tiling)))
    for rows in (1, 33, 256, 700):
        cases.append((f"steady r{rows}", rows, _steady))
    for name, rows, call in cases:
        try:
            worst = max(_worst(call, rows, shape) for shape in (SHAPES[0], SHAPES[3]))
            verdict = "PASS" if worst <= 1 else "FAIL"
        except Exception as failure:
            worst, verdict = float("nan"), f"FAIL {line_of(failure)}"
        print(f"check {name}: worst {worst:.3f} of what is allowed  {verdict}", flush=True)


def _stream_with(tiling: Tiling, x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
    return stream(x, w, bias, workspace(), tiling)


def _steady(x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
    return steady_matmul(workspace())(x, Dense(w), bias)


def _worst(
    call: Callable[[Tensor, Tensor, Tensor | None], Tensor], rows: int, shape: tuple[int, int]
) -> float:
    weight = weights(shape)[0]
    wide = torch.randn(rows, shape[1] + 24, device=DEVICE, dtype=torch.bfloat16)
    bias = torch.randn(shape[0], device=DEVICE)
    worst = 0.0
    for x, b in ((inputs(rows, shape[1]), None), (wide[:, 8:-16], bias), (wide[:, 9:-15], bias)):
        for _ in range(2):
            expected = reference_product(x, weight, b).float()
            error = (call(x, weight, b).float() - expected).abs()
            worst = max(worst, float((error / (LIMIT * (1 + expected.abs()))).nan_to_num(9).max()))
    return worst


def reference_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    backend = reference.create(DEVICE, threads=None, dtype=torch.bfloat16)
    return backend.any_matmul(x, Dense(weight), bias)


CUTS = tuple(
    Cut(*numbers)
    for numbers in (
        (1, 512, 2),
        (1, 1024, 2),
        (1, 1024, 4),
        (1, 2048, 4),
        (1, 2048, 8),
        (2, 1024, 4),
        (2, 1024, 8),
        (4, 512, 8),
    )
)


def vector_section() -> None:
    for rows in (1, 2, 4, 8):
        for width in (4096, 14336):
            variants = [cut_variant(cut) for cut in (CUTS if rows < 8 else CUTS[2:7])]
            shapes = [shape for shape in (*SHAPES, HEAD) if shape[1] == width]
            made = compiled(variants, shapes[0], rows)
            for shape in shapes:
                compare(shape, rows, made)


def few_tilings(rows: int) -> Iterator[Tiling]:
    for numbers in ((64, 128, 4, 4), (64, 128, 4, 3), (128, 64, 4, 4), (128, 128, 8, 3)):
        for resident in (1, 2, 3):
            yield Tiling(rows, *numbers, split=0, resident=resident)
    for numbers in ((64, 256, 4, 3), (128, 128, 4, 4)):
        yield Tiling(rows, *numbers, split=0)
    yield Tiling(rows, 64, 128, 4, 4, split=1)
    yield Tiling(rows, 64, 128, 4, 4, split=2)
    yield Tiling(rows, 64, 128, 4, 4, split=4)


def few_section() -> None:
    for rows in (16, 32, 64):
        made = compiled([tiling_variant(t) for t in few_tilings(rows)], SHAPES[1], rows)
        for shape in SHAPES:
            compare(shape, rows, made)
        compare(HEAD, rows, [v for v in made if not v.name.endswith(("/2", "/4"))], 4)


def many_tilings(rows: int) -> Iterator[Tiling]:
    for numbers in ((128, 128, 64, 8, 4), (128, 64, 128, 4, 3), (128, 256, 64, 8, 4)):
        yield Tiling(*numbers, split=0)
        yield Tiling(*numbers, split=1)
        yield Tiling(*numbers, split=2)
    yield Tiling(128, 64, 64, 4, 4, split=0, resident=2)
    yield Tiling(128, 128, 64, 8, 3, split=0, resident=2)
    if rows > 128:
        for numbers in ((256, 128, 64, 8, 4), (256, 128, 64, 8, 3), (256, 64, 64, 4, 4)):
            yield Tiling(*numbers, split=0)
            yield Tiling(*numbers, split=1)
        yield Tiling(256, 128, 64, 8, 4, split=2)
        yield Tiling(256, 128, 64, 8, 4, split=4)


def many_section() -> None:
    for rows in (256, 128, 512, 96):
        made = compiled([tiling_variant(t) for t in many_tilings(rows)], SHAPES[1], rows)
        for shape in SHAPES:
            compare(shape, rows, made)
        if rows <= 256:
            compare(HEAD, rows, [v for v in made if not v.name.endswith(("/2", "/4"))], 4)


def steady_section() -> None:
    """Bits of rows in different company, then times."""
    for shape in SHAPES:
        x, weight = inputs(8192, shape[1]), weights(shape)[0]
        everything = _steady(x, weight, None)
        wrong = [
            rows
            for rows in (1, 2, 3, 17, 64, 65, 130, 256, 1000, 8192)
            for part in (slice(0, rows), slice(8192 - rows, 8192))
            if not torch.equal(_steady(x[part], weight, None), everything[part])
        ]
        print(f"steady {shape}: {'FAIL at ' + str(wrong) if wrong else 'PASS'}", flush=True)
    alternatives = (
        Tiling(128, 64, 64, 4, 4),
        Tiling(128, 128, 64, 8, 4),
        Tiling(256, 128, 64, 8, 4),
        Tiling(128, 256, 64, 8, 4),
    )
    for rows in (1, 16, 64, 256, 512, 2048, 8192):
        tilings = {
            t
            for t in (*_steady_tilings(), *alternatives)
            if t.block_t <= 2 * rows + 14 and (t.block_t >= 128 or rows <= 64)
        }
        variants = [tiling_variant(t) for t in sorted(tilings, key=tiling_name)]
        for shape in SHAPES:
            compare(shape, rows, compiled(variants, shape, rows), 4)


def _steady_tilings() -> Iterator[Tiling]:
    for by_rows in STEADY_TILINGS.values():
        yield from by_rows.values()


def chosen_section() -> None:
    """What serving runs, which must not lose to cuBLAS by more than noise."""
    matmul = dense_matmul(workspace())
    variants = [Variant("chosen", lambda x, w: matmul(x, Dense(w)))]
    for rows in (1, 2, 3, 16, 32, 33, 64):
        for shape in (*SHAPES, HEAD):
            compare(shape, rows, compiled(variants, shape, rows))


def chain_section() -> None:
    """Dependent products of one row, with and without an early start of the next."""
    cut = Cut(1, 1024, 4)
    small = weights(SHAPES[1])
    layers = [(SHAPES[0], 4096), (SHAPES[1], 4096), (SHAPES[2], 14336), (SHAPES[3], 4096)]

    def four_small(index: int, *, overlapped: bool) -> Tensor:
        x = inputs(1, 4096)
        for number in range(4):
            weight = small[(4 * index + number) % len(small)]
            x = vector(x, weight, None, cut, overlapped=overlapped)
        return x

    def layer(index: int, *, overlapped: bool) -> Tensor:
        x = inputs(1, 4096)
        for shape, used in layers:
            weight = weights(shape)[index % len(weights(shape))]
            x = vector(x, weight, None, cut, overlapped=overlapped)[:, :used]
        return x

    floors = (4 * floor_of(1, SHAPES[1]), sum(floor_of(1, shape) for shape, _ in layers))
    for chain, floor in zip((four_small, layer), floors, strict=True):
        try:
            same = torch.equal(chain(0, overlapped=True), chain(0, overlapped=False))
            times = [
                timed([partial(chain, index, overlapped=overlapped) for index in range(8)])
                for overlapped in (False, True)
            ]
            print(
                f"chain {chain.__name__}: one after the other {times[0]:.1f}, overlapped "
                f"{times[1]:.1f}, floor {floor:.1f}, results {'equal' if same else 'DIFFER'}",
                flush=True,
            )
        except Exception as failure:
            print(f"chain {chain.__name__}: failed {line_of(failure)}", flush=True)


SECTIONS = {
    "check": check,
    "chosen": chosen_section,
    "chain": chain_section,
    "steady": steady_section,
    "vector": vector_section,
    "few": few_section,
    "many": many_section,
}


if __name__ == "__main__":
    run_sections(__doc__, SECTIONS, ALLOWANCE)
