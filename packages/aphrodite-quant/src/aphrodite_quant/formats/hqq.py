"""HQQ weights (`quant_method: hqq`), as transformers and as hqq itself store them: 1 to 8 bits.

A matrix [N, K] is cut into groups of g: its elements row by row fill [N * K / g, g] with a scale
for each row (axis 1), or [g, N * K / g] with a scale for each column (axis 0). `<prefix>.W_q` holds
the codes of that arrangement [R, C]: 8, 4, 2 or 1 bits in uint8 [R / m, C], or ten codes of 3 bits
in int32 [ceil(R / 10), C]; packed row p of P has rows p, p + P, … of R, the first in the highest
bits. `view_as_float` shows the same bytes as floating numbers. `scale` and `zero` [R, 1] or [1, C],
or one of each for the matrix; `shape` [N, K]; `packing`, `nbits` and others say it again.

What transformers stores, or hqq as safetensors, has all of this in tensors. hqq's `qmodel.pt` has a
dictionary for each module, whose settings are numbers and text; before 0.2 all but `W_q` and `bias`
lay in its `meta`. There scales or zero points may be packed themselves (`quant_scale`, `scale_q`,
`meta_scale`; `quant_zero` likewise), which is the same arrangement once more, and computed in the
type of the inner scale. `zero_scale` has zero points and scales one behind the other.
Skipped modules have a plain weight.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd, prod
from typing import Self, cast

import torch
from aphrodite_kernels.layouts import Grouped, PackedWeight
from aphrodite_kernels.layouts.grouped import pack_codes
from aphrodite_kernels.layouts.row_grouped import RowGrouped
from torch import Tensor

from aphrodite_quant.checkpoint import Checkpoint
from aphrodite_quant.containers.memory import MemoryStore
from aphrodite_quant.containers.store import TensorInfo, TensorStore
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
    metadata = checkpoint.metadata
    return lambda store, prefix: read(store, prefix, metadata.get(prefix))


def read(store: TensorStore, prefix: str, description: object = None) -> PackedWeight:
    """The matrix of module `prefix`, plain if it was skipped."""
    if f"{prefix}.W_q" not in store.names():
        return dense.read_left_alone(store, prefix)
    state = _State.of(store, prefix, description)
    _read_beside(store, prefix)
    rows, columns = state.shape()
    scale, zero = (state.numbers(leaf, rows * columns) for leaf in ("scale", "zero"))
    shape = tuple(scale.shape)
    if zero.shape != scale.shape:
        raise state.wrong("zero", f"{list(zero.shape)}", f"{list(shape)} as the scales")
    bits, codes = state.codes(f"{prefix}.W_q", _arranged(shape, rows, columns), store)
    packed = pack_codes(codes.reshape(rows, columns), bits)
    if shape == () or shape[-1] == 1:
        return _by_columns(packed, scale.flatten(), zero.flatten(), bits, columns)
    across = shape[1]
    period = across // gcd(across, columns)
    device = packed.device
    place = torch.arange(period * columns, device=device).view(period, columns) % across
    group = torch.arange(rows, device=device) % period
    return RowGrouped(packed, scale.flatten()[place], zero.flatten()[place], group, bits)


@dataclass(frozen=True, slots=True)
class _State:
    """What is said of something packed, a weight or its scales, in tensors or beside them."""

    store: TensorStore
    prefix: str
    """How the names of its tensors begin; codes of scales lie elsewhere."""
    packed: TensorInfo
    """Its codes, for messages."""
    said: Mapping[str, object] | None
    """None: in tensors."""

    @classmethod
    def of(cls, store: TensorStore, prefix: str, description: object) -> Self:
        info = store.info(f"{prefix}.W_q")
        if description is None:
            return cls(store, f"{prefix}.", info, None)
        value: object = json.loads(str(description))
        said = cast("dict[str, object]", value) if isinstance(value, dict) else {}
        meta = said.get("meta")
        if isinstance(meta, dict):
            return cls(store, f"{prefix}.meta_", info, cast("dict[str, object]", meta))
        return cls(store, f"{prefix}.", info, said)

    def wrong(self, field: str, found: object, expected: str) -> TensorError:
        return TensorError(
            f"{self.packed.file}: tensor {self.packed.name!r} is {self.packed}, and its "
            f"{field} is {found}; expected {expected}"
        )

    def shape(self) -> tuple[int, int]:
        """[N, K]."""
        name = f"{self.prefix}shape"
        if self.said is None:
            found: list[object] = [int(n) for n in exact(self.store, name, torch.int64, (2,))]
        else:
            stated = self.said.get("shape")
            found = cast("list[object]", stated) if isinstance(stated, list) else [stated]
        whole = [n for n in found if isinstance(n, int) and not isinstance(n, bool) and n > 0]
        if len(whole) != 2 or len(found) != 2:
            raise self.wrong("shape", found, "[N, K]")
        return whole[0], whole[1]

    def numbers(self, leaf: str, count: int) -> Tensor:
        """Scales or zero points of `count` weights: [], [G, 1] or [1, G]."""
        name, whole, stated = f"{self.prefix}{leaf}", None, self.said or {}
        both = f"{self.prefix}zero_scale"
        if both in self.store.names():
            info = self.store.info(both)
            if len(info.shape) != 3 or info.shape[0] != 2:
                raise TensorError(f"{info.file}: tensor {both!r} is {info}; expected [2, G, 1]")
            whole = self.store.read(both)[("zero", "scale").index(leaf)].contiguous()
        if not stated.get(f"quant_{leaf}"):
            held = self.store if whole is None else MemoryStore(self.packed.file, {name: whole})
            return floating(held, name, _scale_shape(held, name, count))
        inner = stated.get(f"meta_{leaf}")
        said = cast("dict[str, object]", inner) if isinstance(inner, dict) else {}
        name = f"{self.prefix}{leaf}_q" if whole is None else both
        state = _State(self.store, f"{self.prefix}meta_{leaf}_", self.store.info(name), said)
        rows, columns = state.shape()
        if count % (rows * columns) or 1 not in (rows, columns):
            raise state.wrong("shape", [rows, columns], f"that of scales of {count} weights")
        scale, zero = (state.numbers(each, rows * columns) for each in ("scale", "zero"))
        if zero.shape != scale.shape:
            raise state.wrong("zero", f"{list(zero.shape)}", f"{list(scale.shape)}")
        held = self.store if whole is None else MemoryStore(self.packed.file, {name: whole})
        _, codes = state.codes(name, _arranged(tuple(scale.shape), rows, columns), held)
        return ((codes.to(scale.dtype) - zero) * scale).reshape(rows, columns)

    def codes(self, name: str, arranged: tuple[int, int], held: TensorStore) -> tuple[int, Tensor]:
        """Bits of a code, and the codes [R, C] uint8 that tensor `name` of `held` holds."""
        packing = self._packing()
        if packing not in tuple(_PACKINGS):
            raise self.wrong("packing", repr(packing), f"one of {', '.join(_PACKINGS)}")
        bits, word, several = _PACKINGS[str(packing)]
        height, width = arranged
        if height == 1 and held.info(name).shape[1:] == (1,):
            height, width = width, height  # of one group, either axis looks the same
        shape = (-(-height // several), width)
        words = _words(held, name, word, shape, shown=self._shown())
        shifts = range(bits * (several - 1), -1, -bits)
        mask = (1 << bits) - 1
        parts = [(words >> shift & mask).to(torch.uint8) for shift in shifts]
        return bits, torch.cat(parts)[:height]

    def _packing(self) -> object:
        if self.said is not None:
            return self.said.get("packing")
        info = self.store.info(f"{self.prefix}packing")
        text = self.store.read(info.name).flatten() if info.type == torch.uint8 else ()
        return "".join(chr(int(letter)) for letter in text)

    def _shown(self) -> bool:
        """Whether the codes are shown as floating numbers."""
        if self.said is not None:
            return bool(self.said.get("view_as_float"))
        flag = f"{self.prefix}view_as_float"
        return flag in self.store.names() and bool(self.store.read(flag).any())


def _read_beside(store: TensorStore, prefix: str) -> None:
    for leaf in _BESIDE:
        if f"{prefix}.{leaf}" in store.names():
            store.read(f"{prefix}.{leaf}")
    for leaf in ("quant_scale", "quant_zero"):
        name = f"{prefix}.{leaf}"
        if name in store.names() and bool(store.read(name).any()):
            raise TensorError(
                f"{store.info(name).file}: tensor {name!r} says that scales are quantised too, "
                "which hqq stores in qmodel.pt alone; expected 0"
            )


def _by_columns(packed: Tensor, scale: Tensor, zero: Tensor, bits: int, columns: int) -> Grouped:
    """Groups that may go on in the next row are cut into smaller ones that do not."""
    count = len(packed) * columns
    group = gcd(columns, count // len(scale))
    owner = torch.arange(count // group, device=scale.device) * len(scale) // (count // group)
    shape = (len(packed), columns // group)
    return Grouped(packed, scale[owner].view(shape), zero[owner].view(shape), bits, group)


def _scale_shape(store: TensorStore, name: str, count: int) -> tuple[int, ...]:
    """The shape of the scales, once it is one that `count` weights can have."""
    info = store.info(name)
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


def _words(
    store: TensorStore, name: str, word: torch.dtype, shape: tuple[int, int], *, shown: bool
) -> Tensor:
    """The packed codes, also where they are `shown` as floating numbers."""
    info = store.info(name)
    floating = isinstance(info.type, torch.dtype) and info.type.is_floating_point
    size = shape[0] * shape[1] * word.itemsize
    if shown and floating and info.nbytes == size and info.shape[:1] == shape[:1]:
        return store.read(name).contiguous().view(word).reshape(shape)
    return exact(store, name, word, shape)
