"""The data that paged attention needs, passed as arguments.

Keys and values live in *blocks* of `block_size` positions. A *slot* is one position:
`block * block_size + offset`. Block 0 is never owned by a request: a sliding-window layer's
table points there for blocks that have left the window, and padding writes go there.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class KVCache:
    """Paged keys and values of one layer, each [blocks, block_size, Hkv, D].

    In a dtype of one byte (float8_e4m3fn, float8_e5m2, int8) they are quantised: each vector of D
    numbers is what is stored times a scale of its own. Of uint8 the last dimension is ceil(D / 2):
    two numbers of 4 bits from -8 to 7, plus 8; the first of each two is the lower half of the byte;
    and keys are mixed before, so that no few of them are much larger than the others.
    """

    key: Tensor
    value: Tensor
    key_scale: Tensor | None = None
    """[blocks, block_size, Hkv] float32 of a quantised cache; None otherwise."""
    value_scale: Tensor | None = None
    key_fixed: float | None = field(default=None, kw_only=True)
    """The scale that every vector gets, beyond which numbers saturate; None: one of its own."""
    value_fixed: float | None = field(default=None, kw_only=True)

    @property
    def block_size(self) -> int:
        return self.key.shape[1]


def stored_size(size: int, dtype: torch.dtype) -> int:
    """Elements of a cache of `dtype` that hold a vector of `size` numbers."""
    return (size + 1) // 2 if dtype == torch.uint8 else size


def mixed_size(size: int, dtype: torch.dtype) -> int:
    """How many neighbours of a key of `size` numbers a Hadamard transform mixes for such a cache.

    The largest power of two that divides `size`, of four bits; otherwise 1, none. The transform is
    orthonormal, so that products with queries mixed alike are what they were. QuaRot (arXiv
    2404.00456), section 4.2.
    """
    return size & -size if dtype == torch.uint8 else 1


@dataclass(frozen=True, slots=True)
class AttentionMeta:
    """Where each request's keys lie, for one KV group and one step.

    The queries of request b are the rows `query_starts[b]:query_starts[b + 1]`; the last of them
    stands at position `seq_lens[b] - 1`, the others directly before it.
    """

    block_tables: Tensor
    """[B, max_blocks] int32: block that holds positions i * block_size … of request b."""
    seq_lens: Tensor
    """[B] int32: keys the last query of each request may see, this step's own included."""
    query_starts: Tensor
    """[B + 1] int32: first query row of each request."""
    slots: Tensor
    """[T] int64: slot that receives the key and value of each token."""
    max_query: int
    """Longest query of any request."""
    max_seq: int
    """Largest entry of `seq_lens`."""


@dataclass(frozen=True, slots=True)
class AttentionSpec:
    """What one layer's attention computes; fixed when the model is built."""

    scale: float
    """Factor on q·k."""
    window: int | None = None
    """Sliding window: a query at p sees positions above p - window. None: all."""
    softcap: float | None = None
    """Scores become softcap * tanh(score / softcap)."""
    sinks: Tensor | None = None
    """[H] float32: a score per head that takes part in the softmax and has no value."""
