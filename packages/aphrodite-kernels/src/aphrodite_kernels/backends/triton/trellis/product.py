# pyright: basic
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportGeneralTypeIssues=false
"""Products of some rows with what a trellis decodes to, between both transforms.

A warp takes records of its own along K. Lanes decode what they multiply, so weights go through no
shared memory, and inputs come in the order of lanes (`turn.py`). Weights are exact, in float16, and
sums in float32. Warps meet once, at the end, so a row's result does not depend on its neighbours,
and among shapes of one depth not on the number of rows.

Floor: the bytes of the records over the read bandwidth. Bound, at few rows: about 5 instructions
per weight and lane.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import cuda

from aphrodite_kernels.backends.triton.device import interpreted
from aphrodite_kernels.backends.triton.ggml.operands import loads_end_here
from aphrodite_kernels.backends.triton.specimen import Specimen
from aphrodite_kernels.backends.triton.trellis.decode import field_of, loaded, pair_numbers
from aphrodite_kernels.backends.triton.trellis.fields import TrellisFields


@triton.jit
def weight_operand(numbers, WARPS: tl.constexpr, TILES: tl.constexpr):
    """Weights of two tiles -> operand A [WARPS, 16 TILES, 32], lane by lane in place.

    Its columns are those of a lane side by side, which is how Triton deals out operands that were
    joined; inputs have the same order.
    """
    numbers = tl.reshape(
        numbers, (8, 4, WARPS, TILES, 2, 2, 2, 2)
    )  # g t warp tiles hr hc tile half
    numbers = tl.permute(numbers, (2, 3, 4, 0, 6, 1, 5, 7))
    return tl.reshape(numbers, (WARPS, TILES * 16, 32))


@triton.jit
def input_operand(x, WARPS: tl.constexpr, EIGHTS: tl.constexpr):
    """Inputs [32, WARPS, EIGHTS, 8] -> operand B [WARPS, 32, 8 EIGHTS], lane by lane in place."""
    x = tl.reshape(x, (8, 4, WARPS, EIGHTS, 2, 4))  # row t warp eight tile column
    x = tl.permute(x, (2, 4, 1, 5, 3, 0))
    return tl.reshape(x, (WARPS, 32, EIGHTS * 8))


@triton.jit(do_not_specialize=["rows"])
def trellis_kernel(
    words,
    x,
    out,
    rows,
    N: tl.constexpr,
    K: tl.constexpr,
    STARTS: tl.constexpr,
    PAIR_BITS: tl.constexpr,
    BOOK: tl.constexpr,
    DEEP: tl.constexpr,
    TILES: tl.constexpr,
    EIGHTS: tl.constexpr,
    HELD: tl.constexpr,
    PDL: tl.constexpr,
    EMULATE: tl.constexpr,
):
    """16 TILES columns of out [rows, N] float32 for 8 EIGHTS rows; DEEP warps share K.

    x has the inputs of each of the trellises whose first tiles are STARTS.
    """
    UNITS: tl.constexpr = K // 128
    TURNS: tl.constexpr = (UNITS + DEEP - 1) // DEEP
    RECORD: tl.constexpr = 8 * field_of(PAIR_BITS)
    warp = tl.arange(0, DEEP)
    lane = tl.arange(0, 32)
    tile = tl.program_id(0) * TILES + tl.arange(0, TILES)[None, :]
    tile = tl.minimum(tile, N // 16 - 1)
    records = words + tile.to(tl.int64) * (UNITS * RECORD)
    first_row = tl.program_id(1) * (8 * EIGHTS)
    which = 0
    for index in tl.static_range(1, len(STARTS)):
        which += (tl.program_id(0) * TILES >= STARTS[index]).to(tl.int32)
    eight = which * tl.num_programs(1) * EIGHTS + first_row // 8
    eight += tl.arange(0, EIGHTS)[None, None, :, None]
    inputs = x + eight * (TURNS * DEEP * 1024)
    inputs += lane[:, None, None, None] * 8 + tl.arange(0, 8)[None, None, None, :]
    if PDL:
        cuda.gdc_launch_dependents()
    later = loaded(records + warp[:, None] * RECORD, lane, PAIR_BITS)
    if HELD:
        behind = loaded(records + warp[:, None] * RECORD, (lane + 31) % 32, PAIR_BITS)
    if PDL:
        cuda.gdc_wait()
    total = tl.zeros((DEEP, TILES * 16, EIGHTS * 8), tl.float32)
    for turn in range(TURNS):
        own = later
        unit = turn * DEEP + warp
        following = tl.minimum(unit + DEEP, UNITS - 1)[:, None] * RECORD
        later = loaded(records + following, lane, PAIR_BITS)
        if HELD:
            before = behind
            behind = loaded(records + following, (lane + 31) % 32, PAIR_BITS)
        else:
            current = tl.minimum(unit, UNITS - 1)[:, None] * RECORD
            before = loaded(records + current, (lane + 31) % 32, PAIR_BITS)
        loads_end_here(turn, not EMULATE)
        part = inputs + unit[None, :, None, None] * 1024
        for pair in tl.static_range(4):
            right = input_operand(tl.load(part + pair * 256), DEEP, EIGHTS)
            numbers = pair_numbers(own, before, pair, PAIR_BITS, BOOK, EMULATE)
            total = tl.dot(weight_operand(numbers, DEEP, TILES), right, total)
    result = tl.sum(total, 0)
    column = tl.program_id(0) * (TILES * 16) + tl.arange(0, TILES * 16)[:, None]
    row = first_row + tl.arange(0, EIGHTS * 8)[None, :]
    tl.store(out + row.to(tl.int64) * N + column, result, (column < N) & (row < rows))


@dataclass(frozen=True, slots=True)
class Shape:
    """What a program computes."""

    deep: int
    """Warps that share K."""
    tiles: int
    """Of 16 columns of the result."""
    eights: int
    """Of 8 rows of the result."""
    registers: int | None = None
    """Of a thread, at most: how many programs run at once hangs on it."""
    held: bool = False
    """The words of lanes before are loaded a turn ahead as well."""

    def units(self, inputs: int) -> int:
        """Of 128 inputs, for which the kernel reads inputs."""
        return -(-inputs // (128 * self.deep)) * self.deep


def product(
    x: Tensor, weight: TrellisFields, rows: int, shape: Shape, *, overlapped: bool
) -> Tensor:
    """For each trellis `rows` rows x in the order of lanes, float16, times what words decode to.

    float32 [rows, N].
    """
    outputs = len(weight.svh)
    out = torch.empty((rows, outputs), dtype=torch.float32, device=x.device)
    emulate = interpreted()
    tiles = min(8, outputs // 16) if emulate else shape.tiles  # the interpreter pays for programs
    trellis_kernel[(triton.cdiv(outputs // 16, tiles), triton.cdiv(rows, 8 * shape.eights))](
        weight.words,
        x,
        out,
        rows,
        N=outputs,
        K=weight.inner,
        STARTS=weight.starts,
        PAIR_BITS=weight.pair_bits,
        BOOK=weight.codebook.value,
        DEEP=shape.deep,
        TILES=tiles,
        EIGHTS=shape.eights,
        HELD=shape.held,
        PDL=overlapped,
        EMULATE=emulate,
        num_warps=shape.deep,
        num_stages=1,
        launch_pdl=overlapped,
        maxnreg=shape.registers,
    )
    return out


def _specimen(
    bits: float,
    book: str,
    shape: Shape,
    *,
    starts: tuple[int, ...] = (0,),
    overlapped: bool = False,
) -> Specimen:
    return Specimen(
        trellis_kernel,
        {"words": "*i32", "x": "*fp16", "out": "*fp32", "rows": "i32"},
        {
            "N": 4096,
            "K": 4096,
            "STARTS": starts,
            "PAIR_BITS": int(2 * bits),
            "BOOK": book,
            "DEEP": shape.deep,
            "TILES": shape.tiles,
            "EIGHTS": shape.eights,
            "HELD": shape.held,
            "PDL": overlapped,
            "EMULATE": False,
        },
        num_warps=shape.deep,
        num_stages=1,
        registers=shape.registers,
        aligned=("words", "x", "out"),
        capabilities=(90,) if overlapped else (80, 90),
    )


SPECIMENS = (
    _specimen(4, "mul1", Shape(8, 1, 1, 128), overlapped=True),
    _specimen(4, "mcg", Shape(8, 1, 1, 128), starts=(0, 128, 192)),
    _specimen(3, "3inst", Shape(8, 1, 1, 128)),
    _specimen(6, "mul1", Shape(4, 1, 1, 128)),
    _specimen(2.5, "mul1", Shape(8, 1, 1, 128)),
    _specimen(3.5, "mul1", Shape(4, 1, 4, 128)),
    _specimen(4, "mul1", Shape(4, 1, 4, 128)),
    _specimen(4, "mul1", Shape(4, 1, 1, 128, held=True)),
    _specimen(4, "mul1", Shape(4, 2, 4, 168)),
    _specimen(6, "mul1", Shape(4, 2, 4, 168)),
)
