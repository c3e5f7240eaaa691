"""Products with weights of eight-bit floats on one GPU: checked, then variants timed.

    PYTHONPATH=packages/aphrodite-kernels/src python3 benchmarks/gpu/kernels/fp8.py

--only picks sections: check, chosen, vector, stream, rounded, many, blocks. Shapes are those of an
8B model, whose embedding and head stay bfloat16. Times are of calls inside a CUDA graph over copies
of the weight that together exceed the L2 cache several times. A line is one shape at one number of
rows, its variants fastest first in microseconds. Names of tilings as in dense.py; q+ counts the
rounding of activations in, q alone is that kernel.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial

import torch
from aphrodite_kernels.backends.triton.dense import first_of
from aphrodite_kernels.backends.triton.dense_stream import stream
from aphrodite_kernels.backends.triton.dense_tiles import Scales, Tiling, Workspace
from aphrodite_kernels.backends.triton.dense_vector import Cut, vector
from aphrodite_kernels.backends.triton.scaled import (
    ROUNDED,
    ROUNDED_BLOCKS,
    ROUNDED_FROM,
    WIDENED,
    WIDENED_BLOCKS,
    pack_scaled,
    scaled_matmul,
    scales_of,
    steady_scaled_matmul,
    vendor_rounded,
)
from aphrodite_kernels.backends.triton.scaled_rows import round_rows
from aphrodite_kernels.layouts import Scaled
from aphrodite_kernels.rounded import Rounded
from dense import ROTATED, SHAPES, tiling_name, workspace
from gauge import DEVICE, READ, Allowance, failures_of, line_of, run_sections, timed
from torch import Tensor

ARITHMETIC = 1500e12
"""Operations per second in eight-bit floats."""
ALLOWANCE = Allowance(85)
LIMIT = 2e-2
ROUNDED_LIMIT = 4e-2
"""Root mean square: float8_e4m3fn is off by at most 2**-4 / 3**0.5 = 3.6e-2 of a number on the
mean of a binade's worst end."""
BLOCK = (128, 128)


@dataclass(frozen=True)
class Variant:
    name: str
    call: Callable[[Tensor, Scaled], Tensor]
    error: str = ""


def made(shape: tuple[int, int], block: tuple[int, int]) -> Scaled:
    """Random codes, and scales that make products of normal rows normal."""
    rows, columns = shape
    codes = (64 * torch.randn(shape, device=DEVICE)).to(torch.float8_e4m3fn)
    counts = (-(-rows // block[0]), -(-columns // block[1]))
    scale = (0.5 + torch.rand(counts, device=DEVICE)) / (64 * columns**0.5)
    packed = pack_scaled(Scaled(codes, scale, block))
    assert isinstance(packed, Scaled)
    return packed


@cache
def weights(shape: tuple[int, int], block: tuple[int, int] | None) -> list[Scaled]:
    copies = max(1, round(ROTATED / (shape[0] * shape[1])))
    return [made(shape, block or (1, shape[1])) for _ in range(copies)]


@cache
def inputs(rows: int, width: int) -> Tensor:
    return torch.randn(rows, width, device=DEVICE, dtype=torch.bfloat16)


@cache
def rounded_inputs(rows: int, width: int, depth: int) -> Rounded:
    return round_rows(inputs(rows, width), depth, overlapped=False)


def floor_of(rows: int, shape: tuple[int, int]) -> float:
    """Microseconds."""
    columns, width = shape
    moved = columns * width + 2 * rows * (columns + width)
    return 1e6 * max(moved / READ, 2 * rows * columns * width / ARITHMETIC)


# Checks.


def check_section() -> None:
    """Products of every kind and dtype, a line for each that is wrong, then one."""
    cases = list(checks())
    with ThreadPoolExecutor(12, initializer=lambda: torch.zeros(1, device=DEVICE)) as pool:
        for _ in pool.map(_compile, cases):
            pass
    found = failures_of("", cases)
    print(f"check: {found}: {'FAIL' if found.failures else 'PASS'}")


def _compile(case: tuple[str, Callable[[], float]]) -> None:
    try:
        case[1]()
    except Exception:
        return  # told by the run that counts


def checks() -> Iterator[tuple[str, Callable[[], float]]]:
    bare = replace(workspace(), descriptors=False, float8=False)
    even, odd = (1040, 4096), (140, 333)
    for label, block in (("channel", None), ("block", BLOCK)):
        weight = made(even, block or (1, even[1]))
        for rows in (1, 3, 17, 64, 100, 300):
            yield f"{label} r{rows}", partial(_excess, weight, rows, torch.bfloat16, workspace())
        for rows in (3, 130):
            part = partial(_excess, weight, rows, torch.float16, workspace())
            yield f"{label} r{rows} float16", part
        for rows in (3, 40, 130):
            yield f"{label} r{rows} bytes", partial(_excess, weight, rows, torch.bfloat16, bare)
        yield f"{label} steady", partial(_steady_excess, weight)
        weight = made(odd, block or (1, odd[1]))
        for rows in (3, 40, 130):
            part = partial(_excess, weight, rows, torch.bfloat16, workspace(), first=9)
            yield f"{label} odd r{rows}", part
    weight = made(even, even)
    for rows in (3, 130):
        yield f"tensor r{rows}", partial(_excess, weight, rows, torch.bfloat16, workspace())


def _excess(
    weight: Scaled, rows: int, dtype: torch.dtype, place: Workspace, first: int = 8
) -> float:
    """The error, in what is allowed; x begins at column `first` of a wider matrix."""
    width = weight.in_features
    x = torch.randn(rows, width + 24, device=DEVICE).to(dtype)[:, first : first + width]
    bias = torch.randn(weight.out_features, device=DEVICE)
    exact = x.double() @ weight.dequantize(torch.float64).T
    worst = 0.0
    for _ in range(2):  # the workspace is clean again after the first
        error = scaled_matmul(place, overlapped=True)(x, weight, bias).double() - exact - bias
        if place.float8 and rows >= ROUNDED_FROM:
            ratio = error.square().mean().sqrt() / exact.square().mean().sqrt() / ROUNDED_LIMIT
        else:
            ratio = (error.abs() / (LIMIT * (1 + exact.abs()))).max()
        worst = max(worst, float(ratio.nan_to_num(9)))
    return worst


def _steady_excess(weight: Scaled) -> float:
    """Rows in different company, bit for bit, and the product itself."""
    steady = steady_scaled_matmul(workspace())
    x = torch.randn(700, weight.in_features, device=DEVICE, dtype=torch.bfloat16)
    everything = steady(x, weight)
    for rows in (1, 2, 17, 64, 65, 130, 700):
        for part in (slice(0, rows), slice(700 - rows, 700)):
            if not torch.equal(steady(x[part], weight), everything[part]):
                return torch.inf
    exact = x.double() @ weight.dequantize(torch.float64).T
    return float(((everything.double() - exact).abs() / (LIMIT * (1 + exact.abs()))).max())


# Times.


def compare(
    shape: tuple[int, int], rows: int, block: tuple[int, int] | None, variants: list[Variant]
) -> None:
    """Time the variants, first calls of which compile them on many cores, and print a line."""
    x, copies = inputs(rows, shape[1]), weights(shape, block)

    def first(variant: Variant) -> Variant:
        try:
            variant.call(x, copies[0])
        except Exception as failure:
            return replace(variant, error=line_of(failure))
        return variant

    with ThreadPoolExecutor(12, initializer=lambda: torch.zeros(1, device=DEVICE)) as pool:
        variants = list(pool.map(first, variants))
    torch.cuda.synchronize()
    results: list[tuple[float, str]] = []
    for variant in variants:
        if not ALLOWANCE.left:
            break
        if variant.error:
            print(f"    failed {variant.name}: {variant.error}")
            continue
        results.append((timed([partial(variant.call, x, w) for w in copies]), variant.name))
    floor = floor_of(rows, shape)
    whole = [micros for micros, name in results if "alone" not in name]
    if whole:
        ranking = "  ".join(f"{name} {micros:.1f}" for micros, name in sorted(results))
        ratio = min(whole) / floor
        print(
            f"{shape[0]}x{shape[1]} r{rows} floor {floor:.1f} x{ratio:.2f} | {ranking}", flush=True
        )


def widened_cut(cut: Cut) -> Variant:
    name = f"{cut.block_n}x{cut.block_k}w{cut.num_warps}"
    return Variant(name, lambda x, w: vector(x, w.weight, None, cut, scales_of(w)))


def widened_tiles(tiling: Tiling) -> Variant:
    return Variant(
        tiling_name(tiling),
        lambda x, w: stream(x, w.weight, None, workspace(), tiling, scales_of(w)),
    )


def rounded_tiles(tiling: Tiling) -> Variant:
    def call(x: Tensor, w: Scaled) -> Tensor:
        own = scales_of(w)
        rounded = round_rows(x, own.depth, overlapped=False)
        scales = Scales(own.weight, rounded.scale, own.height, own.depth)
        return stream(rounded.codes, w.weight, None, workspace(), tiling, scales, x.dtype)

    return Variant(f"q+{tiling_name(tiling)}", call)


def vendor_whole(x: Tensor, w: Scaled) -> Tensor:
    return vendor_rounded(round_rows(x, 0, overlapped=False), w, None)


def vendor_alone(x: Tensor, w: Scaled) -> Tensor:
    return vendor_rounded(rounded_inputs(*x.shape, 0), w, None)


def round_alone(x: Tensor, w: Scaled) -> Tensor:
    return round_rows(x, scales_of(w).depth, overlapped=False).codes


VENDOR = (
    Variant("q+vendor", vendor_whole),
    Variant("vendor alone", vendor_alone),
    Variant("q alone", round_alone),
)


def vector_section() -> None:
    cuts = [Cut(*n) for n in ((1, 2048, 4), (2, 2048, 4), (2, 1024, 2), (4, 2048, 4), (1, 1024, 2),
                              (2, 2048, 8))]  # fmt: skip
    for rows in (1, 2, 4):
        for shape in SHAPES:
            rival = [widened_tiles(first_of(WIDENED, rows))] if rows > 1 else []
            compare(shape, rows, None, [*map(widened_cut, cuts[: 7 - rows]), *rival])


def stream_section() -> None:
    for rows in (8, 16, 32, 64):
        height = max(16, rows)
        tilings = [first_of(WIDENED, rows)]
        for numbers in ((64, 128, 4, 4), (64, 256, 4, 4), (128, 128, 4, 4), (128, 128, 8, 4)):
            tilings.append(Tiling(height, *numbers, split=0))
        tilings += [Tiling(height, 64, 128, 4, 4, split=0, resident=n) for n in (2, 3)]
        rounded = [rounded_tiles(Tiling(height, 128, 128, 4, 4, split=0)), VENDOR[0]]
        for shape in SHAPES:
            compare(shape, rows, None, [*map(widened_tiles, tilings), *rounded])


def rounded_section() -> None:
    for rows in (128, 256):
        tilings = [first_of(ROUNDED, rows)]
        for numbers in ((128, 64, 128, 4, 4), (128, 128, 128, 4, 3), (128, 128, 256, 8, 3)):
            tilings.append(Tiling(*numbers, split=0))
        if rows == 256:
            tilings += [Tiling(256, 64, 128, 8, 4, split=0), Tiling(256, 128, 128, 8, 4, split=0)]
        for shape in SHAPES:
            compare(shape, rows, None, [*VENDOR, *map(rounded_tiles, tilings)])


def many_section() -> None:
    tilings = [ROUNDED[1 << 30], Tiling(256, 128, 128, 8, 3), Tiling(256, 128, 128, 8, 3, split=0)]
    for rows in (512, 2048):
        for shape in SHAPES:
            compare(shape, rows, None, [*VENDOR, *map(rounded_tiles, tilings)])


def chosen_section() -> None:
    """What serving runs, beside the vendor's product of rounded activations."""
    matmul = scaled_matmul(workspace(), overlapped=False)
    for rows in (1, 2, 16, 32, 64, 65, 128, 256, 257):
        for shape in SHAPES:
            compare(shape, rows, None, [Variant("chosen", matmul), VENDOR[0]])


def blocks_section() -> None:
    for rows in (1, 4):
        cuts = [Cut(1, 2048, 4), Cut(2, 2048, 4), Cut(2, 1024, 2)]
        rival = widened_tiles(first_of(WIDENED_BLOCKS, rows))
        for shape in SHAPES:
            compare(shape, rows, BLOCK, [*map(widened_cut, cuts), rival])
    for rows in (16, 64):
        tilings = [first_of(WIDENED_BLOCKS, rows), Tiling(rows, 128, 128, 4, 4, split=0)]
        for shape in SHAPES:
            compare(shape, rows, BLOCK, list(map(widened_tiles, tilings)))
    quantised = Variant("q alone", round_alone)
    for rows in (128, 256, 2048):
        tilings = [first_of(ROUNDED_BLOCKS, rows), Tiling(128, 128, 128, 4, 3, split=0)]
        for shape in SHAPES:
            compare(shape, rows, BLOCK, [quantised, *map(rounded_tiles, tilings)])


SECTIONS = {
    "check": check_section,
    "chosen": chosen_section,
    "vector": vector_section,
    "stream": stream_section,
    "rounded": rounded_section,
    "many": many_section,
    "blocks": blocks_section,
}


if __name__ == "__main__":
    run_sections(__doc__, SECTIONS, ALLOWANCE)
