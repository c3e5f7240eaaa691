"""HQQ weights (`quant_method: hqq`) as transformers serialises them: 1 to 8 bits, either axis.

A matrix [N, K] is cut into groups of g: its elements row by row fill [N * K / g, g] with a scale
for each row (axis 1), or [g, N * K / g] with a scale for each column (axis 0). `<prefix>.W_q` holds
the codes of that arrangement [R, C]: 8, 4, 2 or 1 bits in uint8 [R / m, C], or ten codes of 3 bits
in int32 [ceil(R / 10), C]; packed row p of P has rows p, p + P, … of R, the first in the highest
bits. `view_as_float` shows the same bytes as floating numbers. `scale` and `zero` [R, 1] or [1, C],
or one of each for the matrix; `shape` [N, K]; `packing`, `nbits` and others say it again.
Skipped modules have a plain weight.
"""

from math import gcd, prod

import torch
from aphrodite_kernels.layouts import Grouped, PackedWeight
from aphrodite_kernels.layouts.grouped import pack_codes
from aphrodite_kernels.layouts.row_grouped import RowGrouped
from torch import Tensor

from aphrodite_quant.checkpoint import Checkpoint
from aphrodite_quant.containers.store import TensorStore
from aphrodite_quant.errors import TensorError
from aphrodite_quant.formats import dense
from aphrodite_quant.numbers import exact, floating
from aphrodite_quant.reader import Reader

_PACKINGS = {
    "8bit_u8": (8, torch.uint8, 1),
    "4bit_u8": (4, torch.uint8, 2),
    "3bit_32": (3, torch.int32, 10),
    "2bit_u8": (2, torch.uint8, 4),
    "1bit_u8": (1, torch.uint8, 8),
}
"""Bits of a code, type of a word, codes in a word."""
_BESIDE = (
    "nbits", "group_size", "axis", "unpack_view_dtype", "compute_dtype", "offload_meta",
    "encoded_state_dict", "stores_quant_config", "channel_wise", "optimize", "round_zero",
    "view_as_float",
)  # fmt: skip
"""What is stored beside a weight and follows from the rest, or only says how it was made."""


def claims(checkpoint: Checkpoint) -> bool:
    """A directory whose config says so."""
    stated = checkpoint.quant_config or {}
    return checkpoint.kind != "gguf" and stated.get("quant_method") == "hqq"


def reader(checkpoint: Checkpoint) -> Reader:
    """Weights as `read` has them: each module says how it is packed."""
    return read


def read(store: TensorStore, prefix: str) -> PackedWeight:
    """The matrix of module `prefix`, plain if it was skipped."""
    if f"{prefix}.W_q" not in store.names():
        return dense.read_left_alone(store, prefix)
    _read_beside(store, prefix)
    rows, columns = _shape(store, prefix)
    count = rows * columns
    shape = _scale_shape(store, prefix, count)
    scale = floating(store, f"{prefix}.scale", shape)
    zero = floating(store, f"{prefix}.zero", shape)
    bits, codes = _codes(store, prefix, _arranged(shape, rows, columns))
    packed = pack_codes(codes.reshape(rows, columns), bits)
    if shape == () or shape[-1] == 1:
        return _by_columns(packed, scale.flatten(), zero.flatten(), bits, columns)
    across = shape[1]
    period = across // gcd(across, columns)
    device = packed.device
    place = torch.arange(period * columns, device=device).view(period, columns) % across
    group = torch.arange(rows, device=device) % period
    return RowGrouped(packed, scale.flatten()[place], zero.flatten()[place], group, bits)


def _read_beside(store: TensorStore, prefix: str) -> None:
    for leaf in _BESIDE:
        if f"{prefix}.{leaf}" in store.names():
            store.read(f"{prefix}.{leaf}")
    for leaf in ("quant_scale", "quant_zero"):
        name = f"{prefix}.{leaf}"
        if name in store.names() and bool(store.read(name).any()):
            raise TensorError(
                f"{store.info(name).file}: tensor {name!r} says that scales are quantised too; "
                "expected 0, quantise it again without scale_quant_params and zero_quant_params"
            )


def _by_columns(packed: Tensor, scale: Tensor, zero: Tensor, bits: int, columns: int) -> Grouped:
    """Groups that may go on in the next row are cut into smaller ones that do not."""
    count = len(packed) * columns
    group = gcd(columns, count // len(scale))
    owner = torch.arange(count // group, device=scale.device) * len(scale) // (count // group)
    shape = (len(packed), columns // group)
    return Grouped(packed, scale[owner].view(shape), zero[owner].view(shape), bits, group)


def _shape(store: TensorStore, prefix: str) -> tuple[int, int]:
    name = f"{prefix}.shape"
    rows, columns = (int(extent) for extent in exact(store, name, torch.int64, (2,)))
    if rows < 1 or columns < 1:
        raise TensorError(
            f"{store.info(name).file}: tensor {name!r} says {[rows, columns]}; expected [N, K]"
        )
    return rows, columns


def _scale_shape(store: TensorStore, prefix: str, count: int) -> tuple[int, ...]:
    """The shape of the scales, once it is one that `count` weights can have."""
    info = store.info(f"{prefix}.scale")
    shape, groups = info.shape, prod(info.shape)
    if groups < 1 or count % groups or shape not in ((), (groups, 1), (1, groups)):
        raise TensorError(
            f"{info.file}: tensor {info.name!r} is {info}; expected [G, 1] or [1, G] for G groups "
            f"of {count} weights"
        )
    return shape


def _arranged(shape: tuple[int, ...], rows: int, columns: int) -> tuple[int, int]:
    """[R, C] of the arrangement whose scales have that shape."""
    if shape == ():
        return rows, columns
    groups = prod(shape)
    size = rows * columns // groups
    return (groups, size) if shape[-1] == 1 else (size, groups)


def _codes(store: TensorStore, prefix: str, arranged: tuple[int, int]) -> tuple[int, Tensor]:
    """Bits of a code, and the codes [R, C] uint8."""
    name = f"{prefix}.packing"
    info = store.info(name)
    text = store.read(name).flatten() if info.type == torch.uint8 else ()
    packing = "".join(chr(int(letter)) for letter in text)
    if packing not in _PACKINGS:
        raise TensorError(
            f"{info.file}: tensor {name!r} is {info} and says {packing!r}; expected one of "
            f"{', '.join(_PACKINGS)}"
        )
    bits, word, several = _PACKINGS[packing]
    height, width = arranged
    words = _words(store, f"{prefix}.W_q", word, (-(-height // several), width))
    shifts = range(bits * (several - 1), -1, -bits)
    mask = (1 << bits) - 1
    parts = [(words >> shift & mask).to(torch.uint8) for shift in shifts]
    return bits, torch.cat(parts)[:height]


def _words(store: TensorStore, name: str, word: torch.dtype, shape: tuple[int, int]) -> Tensor:
    """The packed codes, also where they are shown as floating numbers."""
    info = store.info(name)
    flag = f"{name.removesuffix('W_q')}view_as_float"
    shown = flag in store.names() and bool(store.read(flag).any())
    floating = isinstance(info.type, torch.dtype) and info.type.is_floating_point
    size = shape[0] * shape[1] * word.itemsize
    if shown and floating and info.nbytes == size and info.shape[:1] == shape[:1]:
        return store.read(name).contiguous().view(word).reshape(shape)
    return exact(store, name, word, shape)
