"""Products with codebooks, lattices, tables, small floats and groups of rows on one GPU, timed.

    PYTHONPATH=packages/aphrodite-kernels/src python3 benchmarks/gpu/kernels/looked.py

--only picks kinds of weights; --sweep times other shapes as well; --warm compiles and times
nothing, so that several processes can do it; --half multiplies in float16. A line is one kind at
one number of rows: what is chosen, and how many times the floor that is, `few` (multiplied as it
is), `blocks` (the same by blocks that any decoder fills), `dense` (made dense by a kernel) and
`torch` (dequantised by torch ops, as without kernels), in microseconds of a call inside a CUDA
graph. The floor is the weight's bytes over the read bandwidth.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from aphrodite_kernels.backends.triton import create
from aphrodite_kernels.backends.triton.dense import dequantised_matmul
from aphrodite_kernels.backends.triton.ggml import Fragments, PartWorkspace
from aphrodite_kernels.backends.triton.ggml.matmul import by_parts, shape_for
from aphrodite_kernels.backends.triton.ggml.product import product as fragments_product
from aphrodite_kernels.backends.triton.looked.frame import Looked, by_dense_parts, few_rows
from aphrodite_kernels.backends.triton.looked.lanes import Lanes, lanes_product
from aphrodite_kernels.backends.triton.looked.vectors import LookedVectors
from aphrodite_kernels.layouts import Lookup, Microscaled, PackedWeight
from aphrodite_kernels.layouts.codebook import Book, Codebook
from aphrodite_kernels.layouts.grouped import pack_codes
from aphrodite_kernels.layouts.lattice import Lattice
from aphrodite_kernels.layouts.outlying import Entries, Outlying, Sparse
from aphrodite_kernels.layouts.rotated import Rotated, Rotation
from aphrodite_kernels.layouts.row_grouped import RowGrouped
from aphrodite_kernels.layouts.runs import Runs
from aphrodite_kernels.testing.kinds.microscaled import random_six_bits
from gauge import DEVICE, READ, Allowance, run_sections, timed

ROWS, COLUMNS = 4096, 14336
COUNTS = (1, 8, 16, 32, 64, 256)
ALLOWANCE = Allowance(100)
SWEEP = (
    Lanes(1, 4, 4),
    Lanes(1, 8, 2),
    Lanes(1, 8, 4),
    Lanes(1, 16, 1),
    Lanes(2, 8, 2),
    Lanes(2, 16, 1),
    Lanes(4, 8, 1),
    Lanes(4, 8, 2),
)


def codebook(shape: tuple[int, int], sizes: tuple[int, ...], *, scaled: bool = True) -> Codebook:
    height, width = shape
    vectors, across = -(-ROWS // height), COLUMNS // width
    books = tuple(
        Book.pack(
            torch.randint(size, (vectors, across)), torch.randn(size, height, width).half() / 8
        )
        for size in sizes
    )
    return Codebook(books, torch.rand(vectors) + 0.5 if scaled else None, ROWS)


def lattice(*, residual: bool = False) -> Codebook:
    codes = torch.randint(1 << 16, (ROWS, COLUMNS // 8))
    books = [Book.pack(codes, Lattice.E8P)]
    if residual:
        books.append(replace(Book.pack(codes & 255, Lattice.E81B), factor=0.5))
    return Codebook(tuple(books), torch.ones(ROWS), ROWS)


def vptq(*sizes: int) -> Runs:
    order, scale = torch.randperm(COLUMNS), torch.rand(COLUMNS) + 0.5
    return Runs((codebook((8, 1), sizes, scaled=False),), order, scale, torch.randn(COLUMNS) / 8)


def quip() -> Rotated:
    def side(channels: int) -> Rotation:
        order = channels // (channels & -channels)
        base = torch.linalg.qr(torch.randn(order, order)).Q.contiguous() if order > 1 else None
        return Rotation(torch.ones(channels), channels, base)

    return Rotated(lattice(), side(ROWS), side(COLUMNS))


def row_grouped(bits: int) -> RowGrouped:
    groups = ROWS // 64
    codes = torch.randint(1 << bits, (ROWS, COLUMNS)).to(torch.uint8)
    scale, zero = torch.rand(2, groups, COLUMNS).half()
    return RowGrouped(pack_codes(codes, bits), scale, zero, torch.arange(ROWS) % groups, bits)


def tables() -> Lookup:
    codes = torch.randint(256, (ROWS, COLUMNS // 2)).to(torch.uint8)
    return Lookup(codes, torch.randn(ROWS, 16) / 4, None, COLUMNS)


def outlying() -> Outlying:
    """0.45 % of a matrix, and ten whole rows."""
    kept = torch.rand(ROWS, COLUMNS) < 0.0045
    kept[torch.randperm(ROWS)[:10]] = True
    entries = Entries(*kept.nonzero(as_tuple=True), torch.randn(int(kept.sum())) / 4)
    return Outlying(tables(), Sparse.of([entries], ROWS, COLUMNS))


def eight_bits() -> Microscaled:
    elements = (100 * torch.randn(ROWS, COLUMNS)).clamp(-448, 448).to(torch.float8_e4m3fn)
    powers = torch.randint(112, 117, (ROWS, COLUMNS // 32)).to(torch.uint8)
    return Microscaled(elements, powers.view(torch.float8_e8m0fnu), 32)


KINDS: dict[str, Callable[[], PackedWeight]] = {
    "aqlm_1x16": lambda: codebook((1, 8), (1 << 16,)),
    "aqlm_2x8": lambda: codebook((1, 8), (256, 256)),
    "vptq_65536": lambda: vptq(1 << 16),
    "vptq_65536_256": lambda: vptq(1 << 16, 256),
    "e8p": lattice,
    "e8p_e81b": lambda: lattice(residual=True),
    "quip": quip,
    "squeezellm": tables,
    "squeezellm_outliers": outlying,
    "hqq_4_axis_0": lambda: row_grouped(4),
    "hqq_3_axis_0": lambda: row_grouped(3),
    "mxfp8": eight_bits,
    "mxfp6": lambda: random_six_bits(ROWS, COLUMNS, torch.Generator(), (3, 2)),
}


def ways(
    weight: PackedWeight, sweep: tuple[Lanes, ...], rows: int, dtype: torch.dtype
) -> Iterator[tuple[str, Callable[[torch.Tensor], torch.Tensor]]]:
    """The ways to multiply by a weight, by name."""
    backend = create(DEVICE, threads=None, dtype=dtype)
    prepared = backend.prepare(weight)
    matmul = backend.matmul_for(prepared)
    yield "chosen", lambda x: matmul(x, prepared)
    inner = prepared
    while not isinstance(inner, Looked | Fragments):
        inner = inner.parts[0] if isinstance(inner, Runs) else inner.weight
    parts = PartWorkspace(DEVICE)
    if isinstance(inner, Fragments):
        if rows <= 64:
            shape = shape_for(rows, len(inner.records), inner.inputs)
            yield "few", lambda x: fragments_product(x, inner, None, shape)
        yield "dense", lambda x: by_parts(x, inner, None, parts)
    else:
        if rows <= 64:
            yield "few", lambda x: inner.few_rows(x, None)
            yield "blocks", lambda x: few_rows(x, inner, None)
        if isinstance(inner, LookedVectors) and inner.kind.by_lanes:
            for lanes in sweep:
                name = f"t{lanes.tiles}w{lanes.warps}r{lanes.resident}"
                yield name, lambda x, lanes=lanes: lanes_product(x, inner, None, lanes)
        yield "dense", lambda x: by_dense_parts(x, inner, None, parts)
    moved = weight.to(DEVICE)
    yield "torch", lambda x: dequantised_matmul(x, moved)


def measure(kind: str, dtype: torch.dtype, *, sweep: bool, warm: bool) -> None:
    weight = KINDS[kind]()
    dense = weight.to(DEVICE).dequantize(torch.float32)
    floor = 1e6 * weight.nbytes / READ
    for rows in COUNTS:
        x = torch.randn(rows, COLUMNS, device=DEVICE, dtype=dtype)
        line: list[str] = []
        for name, call in ways(weight, SWEEP if sweep and rows <= 32 else (), rows, dtype):
            if warm and name != "torch":
                call(x)
            if warm or not ALLOWANCE.left:
                continue
            if name == "chosen":
                expected = x.float() @ dense.T
                error = float((call(x).float() - expected).norm() / expected.norm())
                line.append(f"error {error:.1e}")
            took = timed([partial(call, x)] * (2 if name == "torch" else 8))
            line.append(f"{name} {took:.1f}")
            if name == "chosen":
                line.append(f"{took / floor:.1f} times")
        print(f"{kind}, {rows} rows, floor {floor:.1f} us: {', '.join(line)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--warm", action="store_true")
    parser.add_argument("--half", action="store_true")
    known, _ = parser.parse_known_args()
    dtype = torch.float16 if known.half else torch.bfloat16
    sections = {
        kind: partial(measure, kind, dtype, sweep=known.sweep, warm=known.warm) for kind in KINDS
    }
    run_sections(__doc__, sections, ALLOWANCE, parser)


if __name__ == "__main__":
    main()
