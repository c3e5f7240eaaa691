"""EXL2 weights (`quant_method: exl2`): groups of 2, 3, 4, 5, 6 or 8 bits, mixed in one matrix.

`<prefix>.q_weight` int32 [words, N], each column the little-endian bit streams of its groups, one
after the other; `q_groups` int16 [2 G], of each group its bits and the row of `q_weight` that it
starts at; `q_scale` int32 [G, N / 8] of four bits each, `q_scale_max` float16 [G]:

    w = (q - 2**(bits - 1)) * (q_scale + 1)**2 * q_scale_max / 256

`q_invperm` [K] is where each input feature is stored. `q_perm`, its inverse, and `q_group_map`,
which follows from the groups, need not be there. N is a multiple of 32: a layer of another size is
padded, and cut where the model asks for it. Modules without `q_weight` have a plain weight.
"""

from collections.abc import Iterator
from itertools import groupby

import torch
from aphrodite_kernels.layouts import Grouped, PackedWeight
from aphrodite_kernels.layouts.grouped import unpack_codes
from aphrodite_kernels.layouts.runs import Runs
from torch import Tensor

from aphrodite_quant.checkpoint import Checkpoint
from aphrodite_quant.containers.store import TensorInfo, TensorStore
from aphrodite_quant.errors import TensorError
from aphrodite_quant.formats import dense
from aphrodite_quant.numbers import exact, floating, matrix, permutation
from aphrodite_quant.reader import Reader

_BITS = (2, 3, 4, 5, 6, 8)
_WORD = 32
_ROW_BLOCK = 32
Group = tuple[int, int, int]
"""Bits, first row of words, number of rows of words."""


def claims(checkpoint: Checkpoint) -> bool:
    """A directory whose config says so."""
    stated = checkpoint.quant_config or {}
    return checkpoint.kind != "gguf" and stated.get("quant_method") == "exl2"


def reader(checkpoint: Checkpoint) -> Reader:
    """Weights as `read` has them; bits are what each module's groups say."""
    return read


def read(store: TensorStore, prefix: str) -> PackedWeight:
    """The matrix of module `prefix`: runs of groups of equal bits and size, or plain."""
    if f"{prefix}.q_weight" not in store.names():
        return dense.read_left_alone(store, prefix)
    info = matrix(store, f"{prefix}.q_weight", torch.int32)
    groups = _groups(store, f"{prefix}.q_groups", info)
    scale = _scale(store, prefix, len(groups), info.shape[1])
    words, parts, first = store.read(info.name), list[Grouped](), 0
    for (bits, height), run in groupby(groups, lambda group: (group[0], group[2])):
        members = list(run)
        start, after = members[0][1], members[-1][1] + height
        codes = _rows(words[start:after])
        run_scale = scale[first : first + len(members)].T.contiguous()
        parts.append(Grouped(codes, run_scale, None, bits, height * _WORD // bits))
        first += len(members)
    width = sum(part.in_features for part in parts)
    columns = _columns(store, prefix, width)
    _check_group_map(store, f"{prefix}.q_group_map", groups, width)
    return Runs(tuple(parts), columns, row_block=_ROW_BLOCK)


def _rows(words: Tensor) -> Tensor:
    """[R, N] int32 as [N, 4 R] uint8, whatever strides a single row or column has."""
    return words.T.clone(memory_format=torch.contiguous_format).view(torch.uint8)


def _groups(store: TensorStore, name: str, weight: TensorInfo) -> list[Group]:
    info = store.info(name)
    if info.type != torch.int16 or len(info.shape) != 1 or info.shape[0] % 2 or not info.shape[0]:
        raise TensorError(
            f"{info.file}: tensor {name!r} is {info}; expected int16, bits and first row of every "
            "group"
        )
    stored = [int(value) & 0xFFFF for value in store.read(name).cpu()]
    bits, starts = stored[::2], [*stored[1::2], weight.shape[0]]
    groups = [
        (b, start, after - start)
        for b, start, after in zip(bits, starts[:-1], starts[1:], strict=True)
    ]
    for index, (b, start, height) in enumerate(groups):
        if b not in _BITS or height < 1 or height * _WORD % b or (not index and start):
            raise TensorError(
                f"{info.file}: tensor {name!r} has group {index} of {b} bits in rows {start} to "
                f"{start + height} of {weight.name!r}; expected 2, 3, 4, 5, 6 or 8 bits in rows "
                "that follow each other from 0 and hold whole codes"
            )
    return groups


def _scale(store: TensorStore, prefix: str, groups: int, out: int) -> Tensor:
    """[G, N] float32."""
    name = f"{prefix}.q_scale"
    if out % 8:
        info = store.info(f"{prefix}.q_weight")
        raise TensorError(
            f"{info.file}: tensor {info.name!r} is {info}; expected columns in eights"
        )
    steps = unpack_codes(exact(store, name, torch.int32, (groups, out // 8)).view(torch.uint8), 4)
    largest = floating(store, f"{prefix}.q_scale_max", (groups,)).float()
    return (steps.float() + 1).square() * (largest / 256)[:, None]


def _columns(store: TensorStore, prefix: str, width: int) -> Tensor:
    """The input feature of each stored one."""
    places = permutation(store, f"{prefix}.q_invperm", width)
    columns = places.argsort()
    name = f"{prefix}.q_perm"
    if name in store.names() and not torch.equal(permutation(store, name, width), columns):
        raise TensorError(
            f"{store.info(name).file}: tensor {name!r} is not the inverse of '{prefix}.q_invperm'"
        )
    return columns


def _check_group_map(store: TensorStore, name: str, groups: list[Group], width: int) -> None:
    """Of each stored input feature: its group, and how many are left of it."""
    if name not in store.names():
        return
    found = exact(store, name, torch.int16, (2 * width,)).cpu().view(-1, 2)
    expected = torch.tensor(list(_group_map(groups)), dtype=torch.int16)
    if not torch.equal(found, expected):
        raise TensorError(
            f"{store.info(name).file}: tensor {name!r} is not the map of the groups of q_groups"
        )


def _group_map(groups: list[Group]) -> Iterator[tuple[int, int]]:
    for index, (bits, _, height) in enumerate(groups):
        for left in range(height * _WORD // bits, 0, -1):
            yield index, left
