"""Products with trellises (EXL3) on one GPU: each kernel alone, and shapes of the product.

    PYTHONPATH=packages/aphrodite-kernels/src python3 benchmarks/gpu/kernels/trellis.py

--only picks sections: products, books, others. Times are of calls inside a CUDA graph over copies
of the weight that together exceed the L2 cache. d8t1e4r128h is a Shape: 8 warps deep, 1 tile, 4
eights of rows, 128 registers, held words; the variant behind a star is the chosen one.
"""

from collections.abc import Iterator
from functools import partial

import torch
from aphrodite_kernels.backends.triton.ggml.matmul import PartWorkspace, eights_for
from aphrodite_kernels.backends.triton.trellis import TrellisFields, trellis_matmul, turn
from aphrodite_kernels.backends.triton.trellis.dequantize import decode
from aphrodite_kernels.backends.triton.trellis.matmul import shape_for
from aphrodite_kernels.backends.triton.trellis.product import Shape, product
from aphrodite_kernels.backends.triton.trellis.turn import turn_inputs, turn_outputs
from aphrodite_kernels.layouts.trellis import TrellisCodebook
from gauge import DEVICE, READ, Allowance, line_of, run_sections, timed

ROTATED = 200e6
"""Bytes of copies of one weight."""
SECONDS = 60
SHAPES = ((4096, 4096), (14336, 4096), (4096, 14336))
ROWS = (1, 8, 32, 64)
ALLOWANCE = Allowance(SECONDS)


def copies(
    outputs: int,
    inputs: int,
    bits: int = 4,
    codebook: TrellisCodebook = TrellisCodebook.MUL1,
) -> list[TrellisFields]:
    """Weights of random bits."""
    count = max(1, int(ROTATED / (outputs * inputs * bits / 8)))
    size = (outputs // 16, inputs // 128, 64 * bits)
    suh = torch.ones(1, inputs, device=DEVICE).half()
    svh = torch.ones(outputs, device=DEVICE).half()
    return [
        TrellisFields(
            torch.randint(-(1 << 31), (1 << 31) - 1, size, dtype=torch.int32, device=DEVICE),
            suh,
            svh,
            bits,
            codebook,
            (outputs,),
        )
        for _ in range(count)
    ]


def shapes(rows: int) -> Iterator[Shape]:
    """Worth a try."""
    eights = eights_for(rows)
    for deep in (4, 8):
        for held in (False, True):
            yield Shape(deep, 1, eights, registers=128, held=held)
            if deep == 8 and eights == 1:
                yield Shape(deep, 1, eights, registers=80, held=held)
    if rows == 64:
        yield Shape(4, 1, 8)


def products() -> None:
    """The product between the transforms, and all three."""
    for outputs, inputs in SHAPES:
        weights = copies(outputs, inputs)
        matmul = trellis_matmul(PartWorkspace(DEVICE), overlapped=True)
        for rows in ROWS:
            chosen = shape_for(rows, outputs // 16, inputs)
            x = torch.randn(rows, inputs, device=DEVICE).bfloat16()
            floor = 1e6 * weights[0].words.nbytes / READ
            found = [f"all {timed([partial(matmul, x, each) for each in weights]):.1f}"]
            for shape in shapes(rows):
                name = f"d{shape.deep}t{shape.tiles}e{shape.eights}r{shape.registers}"
                name += "h" * shape.held
                groups = -(-rows // (8 * shape.eights)) * shape.eights
                units = shape.units(inputs)
                turned = torch.randn(1, groups, units, 1024, device=DEVICE).half()
                calls = [
                    partial(product, turned, each, rows, shape, overlapped=True) for each in weights
                ]
                try:
                    time = f"{timed(calls):.1f}"
                except Exception as failure:
                    time = line_of(failure)
                found.append(f"{name}{'*' * (shape == chosen)} {time}")
            print(f"{outputs}x{inputs}, {rows} rows, floor {floor:.1f} us: {', '.join(found)}")


def books() -> None:
    """Codebooks and bits."""
    for codebook in TrellisCodebook:
        for bits in (3, 4, 6):
            weights = copies(14336, 4096, bits, codebook)
            matmul = trellis_matmul(PartWorkspace(DEVICE), overlapped=True)
            found: list[str] = []
            for rows in (1, 32):
                x = torch.randn(rows, 4096, device=DEVICE).bfloat16()
                time = timed([partial(matmul, x, each) for each in weights])
                found.append(f"{rows} rows {time:.1f} us")
            print(f"14336x4096, {bits} bits, {codebook}: {', '.join(found)}", flush=True)


def others() -> None:
    """Transforms, and the dense matrix."""
    for width in (4096, 14336):
        scale = torch.ones(width, device=DEVICE).half()
        for rows in (1, 32, 8192):
            x = torch.randn(rows, width, device=DEVICE).bfloat16()
            wide = x.float() if rows < 100 else x
            few = {"groups": -(-rows // 8), "units": width // 128} if rows < 100 else {}
            dtype = torch.float16 if few else torch.bfloat16
            calls = (
                partial(turn_inputs, x, scale[None], dtype, overlapped=False, **few),
                partial(turn_outputs, wide, scale, None, torch.bfloat16, overlapped=False),
            )
            for turn.WARPS in (1, 2, 4, 8):
                before, behind = (timed([call] * 8) for call in calls)
                found = f"inputs {before:.1f} us, outputs {behind:.1f}"
                print(f"transforms of {rows}x{width}, {turn.WARPS} warps: {found}", flush=True)
    for bits in (4, 6):
        weights = copies(14336, 4096, bits)
        dense = torch.empty(14336, 4096, dtype=torch.bfloat16, device=DEVICE)
        time = timed([partial(decode, each, 0, dense) for each in weights])
        floor = 1e6 * (weights[0].words.nbytes + dense.nbytes) / 4.3e12
        print(f"decoding 14336x4096 of {bits} bits: {time:.1f} us, floor {floor:.1f}")


if __name__ == "__main__":
    run_sections(__doc__, {"products": products, "books": books, "others": others}, ALLOWANCE)
