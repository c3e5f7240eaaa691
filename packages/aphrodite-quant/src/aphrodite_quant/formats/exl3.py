"""Trellis-coded weights (`quant_method: exl3`), each of its own number of bits.

`<prefix>.trellis` int16 [K / 16, N / 16, 16 b]; scales `suh` [K] and `svh` [N] float16, or in
older files their signs alone, `su` and `sv`, int16 of 16 channels each, a set bit being -1. A
scalar `mcg` or `mul1` chooses another codebook; with `mul1`, b may be 1.5, 2.5 or 3.5. N and K are
multiples of 128: a layer of other sizes is padded, and cut where the model asks for it. Modules
without a trellis are plain.
"""

import torch
from aphrodite_kernels.layouts import PackedWeight
from aphrodite_kernels.layouts.trellis import TRELLIS_HALVES, Trellis, TrellisCodebook
from torch import Tensor

from aphrodite_quant.checkpoint import Checkpoint
from aphrodite_quant.containers.store import TensorInfo, TensorStore
from aphrodite_quant.errors import FormatError, TensorError
from aphrodite_quant.formats import dense
from aphrodite_quant.numbers import exact, finite
from aphrodite_quant.reader import Reader

_BLOCK = 128
_STATED_BITS = {"bits": 8, "head_bits": 16}
MULTIPLIERS = {TrellisCodebook.MCG: 0xCBAC1FED, TrellisCodebook.MUL1: 0x83DCD12D}
"""What a scalar beside a trellis holds, by which codebook it marks."""


def claims(checkpoint: Checkpoint) -> bool:
    """A directory whose config says so."""
    stated = checkpoint.quant_config or {}
    return checkpoint.kind != "gguf" and stated.get("quant_method") == "exl3"


def reader(checkpoint: Checkpoint) -> Reader:
    """Weights as `read` has them; bits and codebook are what each module's tensors say.

    What the configuration says of bits, an average and the head's, only has to be possible.
    """
    stated = checkpoint.quant_config or {}
    for name, most in _STATED_BITS.items():
        bits = stated.get(name, most)
        if not isinstance(bits, int | float) or not 1 <= bits <= most:
            raise FormatError(
                f"{checkpoint.path}: {name} is a number from 1 to {most}, found {bits!r}"
            )
    return read


def read(store: TensorStore, prefix: str) -> PackedWeight:
    """The matrix of module `prefix`: a trellis, or plain."""
    name = f"{prefix}.trellis"
    if name not in store.names():
        return dense.read_left_alone(store, prefix)
    info = store.info(name)
    shape = info.shape
    if info.type != torch.int16 or len(shape) != 3 or shape[2] not in TRELLIS_HALVES:
        raise TensorError(
            f"{info.file}: tensor {name!r} is {info}; expected int16 [K / 16, N / 16, 16 b], "
            "b from 1 to 8, 1.5, 2.5 or 3.5"
        )
    if shape[0] % 8 or shape[1] % 8 or 0 in shape:
        raise TensorError(
            f"{info.file}: tensor {name!r} is {info}, {shape[0] * 16} x {shape[1] * 16} weights; "
            f"expected multiples of {_BLOCK}"
        )
    suh, svh = (
        _scale(store, prefix, side, tiles * 16)
        for side, tiles in (("su", shape[0]), ("sv", shape[1]))
    )
    book = _codebook(store, prefix, info)
    if shape[2] % 16 and book != TrellisCodebook.MUL1:
        raise TensorError(
            f"{info.file}: tensor {name!r} has weights of {shape[2] / 16} bits, which only the "
            f"codebook mul1 has, but its codebook is {book}; was {prefix + '.mul1'!r} lost?"
        )
    return Trellis(store.read(name), suh, svh, book)


def _codebook(store: TensorStore, prefix: str, trellis: TensorInfo) -> TrellisCodebook:
    marked = [book for book in MULTIPLIERS if f"{prefix}.{book}" in store.names()]
    if len(marked) > 1:
        raise TensorError(
            f"{trellis.file}: tensor {trellis.name!r} has both mcg and mul1 beside it; "
            "expected one at most"
        )
    if not marked:
        return TrellisCodebook.INST3
    book, info = marked[0], store.info(f"{prefix}.{marked[0]}")
    if info.type not in (torch.int32, torch.uint32, torch.int64) or info.nbytes > 8:
        raise TensorError(f"{info.file}: tensor {info.name!r} is {info}; expected one int32")
    marks = store.read(info.name).reshape(-1).long() & 0xFFFFFFFF
    if len(marks) != 1 or int(marks[0]) != MULTIPLIERS[book]:
        found = ", ".join(hex(int(mark)) for mark in marks)
        raise TensorError(
            f"{info.file}: tensor {info.name!r} holds {found or 'nothing'}; "
            f"expected {hex(MULTIPLIERS[book])}"
        )
    return book


def _scale(store: TensorStore, prefix: str, side: str, size: int) -> Tensor:
    """Scales [size] float16 of one side, from numbers or from signs."""
    if f"{prefix}.{side}h" not in store.names() and f"{prefix}.{side}" in store.names():
        return _signs(store, f"{prefix}.{side}", size)
    scale = exact(store, f"{prefix}.{side}h", torch.float16, (size,))
    finite(store, f"{prefix}.{side}h")
    return scale


def _signs(store: TensorStore, name: str, size: int) -> Tensor:
    words = exact(store, name, torch.int16, (size // 16,))
    place = torch.arange(16, dtype=torch.int32, device=words.device)
    bits = words.int()[:, None] >> place & 1
    return (1 - 2 * bits).flatten().half()
