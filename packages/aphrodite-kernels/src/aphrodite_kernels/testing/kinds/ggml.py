"""Blocks of every ggml type that is decoded."""

import torch

from aphrodite_kernels.layouts import GgmlBlocks, GgmlType
from aphrodite_kernels.layouts.ggml.decoders import DECODERS
from aphrodite_kernels.testing.case import Rounding
from aphrodite_kernels.testing.kinds import WeightKind

_COMPANY = (GgmlType.Q4_K, GgmlType.Q6_K, GgmlType.Q8_0)


def random_blocks(
    kind: GgmlType, rows: int, columns: int, generator: torch.Generator
) -> GgmlBlocks:
    """A weight of random blocks whose largest element lies in [0.01, 1]."""
    pool = torch.empty(0, kind.block_bytes, dtype=torch.uint8)
    while len(pool) < 64:
        shape = ((1 << 18) // kind.block_size, kind.block_bytes)
        drawn = torch.randint(256, shape, generator=generator).to(torch.uint8)
        largest = DECODERS[kind](drawn).abs().amax(1)
        pool = torch.cat((pool, drawn[(largest >= 0.01) & (largest <= 1)]))
    count = rows * columns // kind.block_size
    chosen = torch.randint(len(pool), (count,), generator=generator)
    return GgmlBlocks(pool[chosen].view(rows, -1), kind)


def _kind(type_: GgmlType) -> WeightKind:
    return WeightKind(
        type_.name,
        lambda rows, columns, generator: random_blocks(type_, rows, columns, generator),
        rounding=Rounding.STEPS,
        widths=(256, 768) if type_.block_size > 32 else (96, 576),
        company=type_ in _COMPANY,
    )


KINDS = tuple(map(_kind, sorted(DECODERS)))
