"""Products with ggml weights on one GPU: every type checked, then the kernels' variants timed.

    PYTHONPATH=packages/aphrodite-kernels/src python3 benchmarks/gpu/kernels/ggml.py

--only picks sections: check, pack, few, many. `check` runs each type in a process of its own, since
a faulty address ends all work of its process, and prints a line for each failure. Times are of
calls inside a CUDA graph over copies of the weight that together exceed the L2 cache several times.
d2s4t1e2hp is a Shape: 2 warps deep, 4 side by side, 1 tile, 2 eights of rows, held records, paced
inputs; r128 bounds registers; one-d8 is the kernel of one row. The variant behind a star is the
chosen one.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import torch
from aphrodite_kernels.backends.triton.dense_tiles import workspace_on
from aphrodite_kernels.backends.triton.ggml import (
    Fragments,
    PartWorkspace,
    embed_fragments_on,
    ggml_matmul,
    pack_fragments,
    steady_ggml_matmul,
)
from aphrodite_kernels.backends.triton.ggml import matmul as ways
from aphrodite_kernels.backends.triton.ggml.dequantize import dequantize
from aphrodite_kernels.backends.triton.ggml.encoding import ENCODINGS, TILE, UNIT
from aphrodite_kernels.backends.triton.ggml.product import Shape, product
from aphrodite_kernels.backends.triton.ggml.single import single_product
from aphrodite_kernels.layouts import GgmlBlocks, GgmlType
from aphrodite_kernels.testing import random_blocks
from gauge import DEVICE, READ, Allowance, failures_of, line_of, run_sections, timed
from torch import Tensor

ROTATED = 300e6
"""Bytes of copies of one weight."""
SECONDS = 40
"""Of the products of few rows, without compilation."""
SHAPES = ((6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336))
HEAD = (128256, 4096)
WHOLE, RAGGED = (1040, 4096), (100, 768)
ROWS = (1, 3, 8, 17, 32, 64, 96, 130)
LIMITS = {torch.bfloat16: 2e-2, torch.float16: 4e-3}
"""The conformance suite's: of the typical product and of the expected one."""


# Checks of one type, in a process of its own.


def check_section() -> None:
    """Every type in its own process; a line per failure, then a line per type."""

    def one(kind: GgmlType) -> tuple[GgmlType, str]:
        command = [sys.executable, str(Path(__file__)), "--type", kind.name]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
        except subprocess.TimeoutExpired as failure:
            return kind, f"{failure.stdout or ''}\nFAIL {kind.name}: no end after 110 s"
        last = done.stderr.strip().splitlines()[-1:] if done.returncode else []
        crash = f"\nFAIL {kind.name}: ended by {done.returncode}: {last}" if done.returncode else ""
        return kind, done.stdout + crash

    failed: list[str] = []
    with ThreadPoolExecutor(len(ENCODINGS)) as pool:
        for kind, output in pool.map(one, ENCODINGS):
            print(output.strip(), flush=True)
            if "FAIL" in output:
                failed.append(kind.name)
    verdict = f"FAIL: {', '.join(failed)}" if failed else "PASS"
    print(f"check of {len(ENCODINGS)} types: {verdict}", flush=True)


def check_type(kind: GgmlType) -> None:
    """All checks of one type; a line for each that fails and one in sum."""
    torch.manual_seed(kind)
    print(f"{kind.name}: {failures_of(f'{kind.name} ', checks(kind))} of what is allowed")


def checks(kind: GgmlType) -> Iterator[tuple[str, Callable[[], float]]]:
    """As the engine runs them: each starts early; the ragged shape in float16 as well."""
    for shape in (WHOLE, RAGGED):
        blocks = random_blocks(kind, *shape, torch.Generator().manual_seed(shape[0])).to(DEVICE)
        packed = pack_fragments(blocks)
        assert isinstance(packed, Fragments)
        dense = blocks.dequantize(torch.float64)
        name = f"{shape[0]}x{shape[1]}"
        yield f"pack {name}", partial(pack_excess, packed, blocks)
        for dtype in LIMITS if shape == RAGGED else (torch.bfloat16,):
            label = f"{name} {dtype}"
            yield f"dequantize {label}", partial(dequantize_excess, packed, dense, dtype)
            yield f"embed {label}", partial(embed_excess, packed, dense, dtype)
        for rows in ROWS if shape == WHOLE else (*ROWS, 12):
            part = partial(product_excess, packed, dense, rows, torch.bfloat16)
            yield f"product r{rows} {name}", part
        for rows in (3, 32, 130) if shape == RAGGED else ():
            part = partial(product_excess, packed, dense, rows, torch.float16)
            yield f"product r{rows} {name} float16", part
        yield f"steady {name}", partial(steady_excess, packed)


def pack_excess(packed: Fragments, blocks: GgmlBlocks) -> float:
    return 0.0 if torch.equal(packed.dequantize(), blocks.dequantize()) else torch.inf


def dequantize_excess(packed: Fragments, dense: Tensor, dtype: torch.dtype) -> float:
    """In roundings of an element, where codes are exact and scales are float32."""
    out = torch.empty(dense.shape, device=DEVICE, dtype=dtype)
    dequantize(packed, 0, out)
    return rounding_excess(out, dense)


def embed_excess(packed: Fragments, dense: Tensor, dtype: torch.dtype) -> float:
    tokens = torch.randint(len(dense), (33,), device=DEVICE, dtype=torch.int32)
    out = embed_fragments_on(dtype, overlapped=True)(tokens, packed, 2.0)
    return rounding_excess(out, 2 * dense[tokens.long()])


def rounding_excess(out: Tensor, expected: Tensor) -> float:
    """Of 2 roundings, or of the least number by which a bias cancels."""
    error = (out.double() - expected).abs()
    allowed = 2 * torch.finfo(out.dtype).eps * expected.abs() + 1e-5
    return float((error / allowed).nan_to_num(torch.inf).max())


def product_excess(packed: Fragments, dense: Tensor, rows: int, dtype: torch.dtype) -> float:
    matmul = ggml_matmul(workspace_on(DEVICE), workspace(), overlapped=True)
    wide = torch.randn(rows, dense.shape[1] + 24, device=DEVICE).to(dtype)
    bias = torch.randn(len(dense), device=DEVICE)
    worst = 0.0
    for x, b in (
        (wide[:, :-24].contiguous(), None),
        (wide[:, 8:-16], bias),
        (wide[:, 9:-15], bias),
    ):
        expected = x.double() @ dense.T + (0 if b is None else b.double())
        typical = x.double().square().mean(1).sqrt()[:, None] * dense.square().sum(1).sqrt()
        error = (matmul(x, packed, b).double() - expected).abs()
        allowed = LIMITS[dtype] * (typical + expected.abs())
        worst = max(worst, float((error / allowed).nan_to_num(torch.inf).max()))
    return worst


def steady_excess(packed: Fragments) -> float:
    """Rows have the same bits in any company."""
    matmul = steady_ggml_matmul(overlapped=True)
    x = torch.randn(300, packed.inputs, device=DEVICE, dtype=torch.bfloat16)
    everything = matmul(x, packed)
    alike = all(torch.equal(matmul(x[:rows], packed), everything[:rows]) for rows in (1, 33))
    return 0.0 if alike else torch.inf


# Times.


@cache
def workspace() -> PartWorkspace:
    return PartWorkspace(DEVICE)


@cache
def weights(kind: GgmlType, shape: tuple[int, int]) -> list[Fragments]:
    """Of random bits: no time depends on what they mean."""
    outputs, inputs = shape
    size = (-(-outputs // TILE), -(-inputs // UNIT), ENCODINGS[kind].record)
    nbytes = 2 * size[0] * size[1] * size[2]
    return [
        Fragments(
            torch.randint(-(2**15), 2**15, size, dtype=torch.int16, device=DEVICE),
            ENCODINGS[kind],
            *shape,
        )
        for _ in range(max(1, round(ROTATED / nbytes)))
    ]


@cache
def inputs_of(rows: int, width: int) -> Tensor:
    return torch.randn(rows, width, device=DEVICE, dtype=torch.bfloat16)


@dataclass(frozen=True)
class Single:
    """The kernel of one row."""

    deep: int
    registers: int | None = None


def name_of(shape: Shape | Single) -> str:
    limit = f"r{shape.registers}" if shape.registers else ""
    if isinstance(shape, Single):
        return f"one-d{shape.deep}{limit}"
    marks = "h" * shape.held + "p" * shape.paced
    return f"d{shape.deep}s{shape.side}t{shape.tiles}e{shape.eights}{marks}{limit}"


def variants_of(
    kind: GgmlType, size: tuple[int, int], rows: int
) -> tuple[Shape, ...] | tuple[Single, ...]:
    """The chosen shape of a program, and others."""
    tiles = -(-size[0] // TILE)
    if rows == 1:
        singles = (Single(ways.deep_for(3, tiles, size[1])), Single(4), Single(8))
        return tuple(dict.fromkeys((*singles, *([Single(8, 96)] * (kind in TRIED)))))
    if rows <= 8:
        others = (
            Shape(4, 2, 1, 1),
            Shape(4, 2, 1, 1, held=1, registers=128),
            Shape(8, 1, 1, 1, held=1, registers=128),
        )
    elif rows <= 16:
        others = (
            Shape(4, 2, 1, 2),
            Shape(4, 2, 1, 2, held=1, paced=True, registers=128),
            Shape(8, 1, 1, 2, held=1, paced=True, registers=128),
        )
    else:
        others = (
            Shape(4, 1, 2, 4),
            Shape(2, 4, 1, 4, paced=True, registers=128),
            Shape(4, 2, 1, 4, paced=True, registers=128),
            Shape(8, 1, 1, 4, paced=True, registers=128),
            Shape(4, 1, 2, 4, paced=True, registers=168),
        )
    chosen = ways.shape_for(rows, tiles, size[1])
    others = others[-TRIED[kind] :] if kind in TRIED else ()
    return tuple(dict.fromkeys((chosen, *others)))


def call_of(variant: Shape | Single, x: Tensor) -> Callable[..., Tensor]:
    """What multiplies x by a weight."""
    if isinstance(variant, Shape):
        return partial(product, x, bias=None, shape=variant, overlapped=True)
    return partial(
        single_product,
        x,
        bias=None,
        deep=variant.deep,
        registers=variant.registers,
        overlapped=True,
    )


TRIED = {GgmlType.Q4_K: 5, GgmlType.Q6_K: 1}
"""Shapes besides the chosen one, at most."""


def few_plan() -> Iterator[tuple[GgmlType, tuple[int, int], int]]:
    for rows in (1, 32, 4, 8, 16, 64, 96):
        for shape in SHAPES:
            yield GgmlType.Q4_K, shape, rows
        if rows in (1, 8, 32, 64):
            yield GgmlType.Q6_K, HEAD, rows
            yield GgmlType.Q6_K, SHAPES[3], rows
        if rows in (1, 32):
            for kind in (GgmlType.Q8_0, GgmlType.Q4_0):
                yield kind, SHAPES[0], rows
                yield kind, SHAPES[2], rows


def few_section() -> None:
    """Kernels that read records: microseconds, rate of packed bytes, ratio to the floor."""
    plan = list(few_plan())
    failed = compile_all(plan)
    begun = time.monotonic()
    for kind, shape, rows in plan:
        if time.monotonic() - begun > SECONDS:
            print(f"time is up before {kind.name} {shape} r{rows}")
            return
        copies = weights(kind, shape)
        x = inputs_of(rows, shape[1])
        floor = 1e6 * copies[0].nbytes / READ
        results: list[tuple[float, str]] = []
        for place, variant in enumerate(variants_of(kind, shape, rows)):
            if (kind, shape[1], variant) in failed:
                continue
            run = call_of(variant, x)
            label = "*" * (not place) + name_of(variant)
            attempt(results, label, [partial(run, weight=each) for each in copies])
        if rows >= 64:
            by_parts = partial(ways.by_parts, x, bias=None, workspace=workspace())
            attempt(results, "parts", [partial(by_parts, weight=each) for each in copies])
        report(f"{kind.name} {shape[0]}x{shape[1]} r{rows}", floor, copies[0].nbytes, results)


def attempt(
    results: list[tuple[float, str]], label: str, calls: list[Callable[[], object]]
) -> None:
    try:
        results.append((timed(calls), label))
    except Exception as failure:
        print(f"    failed {label}: {line_of(failure)}", flush=True)


def report(name: str, floor: float, nbytes: int, results: list[tuple[float, str]]) -> None:
    if not results:
        return
    results.sort()
    best = results[0][0]
    ranking = "  ".join(f"{label} {micros:.1f}" for micros, label in results)
    print(
        f"{name} floor {floor:.1f} best {best:.1f} (x{best / floor:.2f}, "
        f"{nbytes / best / 1e6:.2f} TB/s) | {ranking}",
        flush=True,
    )


def compile_all(plan: list[tuple[GgmlType, tuple[int, int], int]]) -> set[object]:
    """Call every variant once, on many cores; the ones that failed."""
    begun = time.monotonic()
    jobs = {
        (kind, shape[1], variant): (kind, shape, rows)
        for kind, shape, rows in reversed(plan)
        for variant in variants_of(kind, shape, rows)
    }
    for kind, shape, rows in jobs.values():
        weights(kind, shape)
        inputs_of(rows, shape[1])

    def first(key: tuple[GgmlType, int, Shape | Single]) -> object | None:
        kind, shape, rows = jobs[key]
        try:
            call_of(key[2], inputs_of(rows, shape[1]))(weight=weights(kind, shape)[0])
        except Exception as failure:
            print(f"    failed {kind.name} {name_of(key[2])}: {line_of(failure)}", flush=True)
            return key
        return None

    with ThreadPoolExecutor(16) as pool:
        failed = {key for key in pool.map(first, jobs) if key}
    torch.cuda.synchronize()
    print(f"{len(jobs)} variants compiled in {time.monotonic() - begun:.0f} s", flush=True)
    return failed


def many_section() -> None:
    """Dense by parts and the vendor's product, against that product of a dense weight alone."""
    for kind, shape in (
        (GgmlType.Q4_K, SHAPES[0]),
        (GgmlType.Q4_K, SHAPES[2]),
        (GgmlType.Q6_K, SHAPES[3]),
        (GgmlType.Q6_K, HEAD),
    ):
        copies = weights(kind, shape)[:4]
        dense = torch.randn(shape, device=DEVICE, dtype=torch.bfloat16)
        whole = torch.empty(
            ways.part_rows(*shape, ways.PART), shape[1], device=DEVICE, dtype=dense.dtype
        )
        decoding = timed([partial(dequantize, copies[0], 0, whole)])
        rate = (2 * whole.numel() + copies[0].nbytes * whole.numel() / dense.numel()) / decoding
        print(
            f"{kind.name} {shape[0]}x{shape[1]} a part of {len(whole)} rows is dense in "
            f"{decoding:.1f} us, {rate / 1e6:.2f} TB/s"
        )
        for rows in (128, 256, 2048) if shape != HEAD else (256,):
            x = inputs_of(rows, shape[1])
            vendor = timed([partial(torch.mm, x, dense.T)])
            times: list[str] = []
            for part in (1 << 24, 1 << 25, 1 << 26):
                by_parts = partial(ways.by_parts, x, bias=None, workspace=workspace(), part=part)
                micros = timed([partial(by_parts, weight=each) for each in copies])
                times.append(f"part {part >> 20}M {micros:.1f} (x{micros / vendor:.2f})")
            print(
                f"{kind.name} {shape[0]}x{shape[1]} r{rows} bf16 product {vendor:.1f} | "
                + "  ".join(times),
                flush=True,
            )


def pack_section() -> None:
    """Seconds and memory of packing on the device, and bytes against those of the file."""
    for kind, shape in (
        (GgmlType.Q4_K, SHAPES[2]),
        (GgmlType.Q6_K, HEAD),
        (GgmlType.Q8_0, SHAPES[0]),
    ):
        width = shape[1] // kind.block_size * kind.block_bytes
        data = torch.randint(256, (shape[0], width), dtype=torch.uint8, device=DEVICE)
        blocks = GgmlBlocks(data, kind)
        pack_fragments(blocks)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before, begun = torch.cuda.memory_allocated(), time.monotonic()
        packed = pack_fragments(blocks)
        torch.cuda.synchronize()
        taken = time.monotonic() - begun
        peak = torch.cuda.max_memory_allocated() - before - packed.nbytes
        print(
            f"pack {kind.name} {shape[0]}x{shape[1]}: {1e3 * taken:.1f} ms "
            f"({8e9 * taken / shape[0] / shape[1]:.2f} s for 8e9 weights), "
            f"{packed.nbytes / blocks.nbytes:.3f} of the file's bytes, {peak / 1e6:.0f} MB besides",
            flush=True,
        )


ALLOWANCE = Allowance(300)
SECTIONS = {
    "check": check_section,
    "pack": pack_section,
    "few": few_section,
    "many": many_section,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--type", choices=[kind.name for kind in ENCODINGS], help="check only it")
    wanted = parser.parse_known_args()[0].type
    if wanted:
        check_type(GgmlType[wanted])
    else:
        run_sections(__doc__, SECTIONS, ALLOWANCE, parser)


if __name__ == "__main__":
    main()
