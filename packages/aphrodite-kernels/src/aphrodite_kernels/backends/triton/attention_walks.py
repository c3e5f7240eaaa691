# pyright: basic
# pyright: reportArgumentType=false, reportReturnType=false
"""How programs of decoding go along the line of positions: measured choices."""

from dataclasses import dataclass

import torch
import triton

_MERGED = 64
"""Numbers of partials that a thread merges at a time: more take registers from the walk."""
_FOLDED_BYTES = 1
"""Of a number of the cache, up to which `walk_folded` is taken. It takes 2 as well; for bfloat16
the plain walk is faster: 152 us a layer instead of 174 for 256 contexts of 640 (H200)."""
_CROWD = 8
"""KV heads of requests for each processor from which on a program of one warp has enough to do:
256 contexts of 640 take 152 us between the products of a step instead of 174, 32 of 384 more."""
_FEW_WARPS_BYTES = 256
"""Of a position's key, up to which two warps are as fast as four or faster (H200): 256 contexts of
540 take 143 us instead of 147, 32 of 384 17.4 instead of 17.8."""


@dataclass(frozen=True, slots=True)
class Walk:
    """How programs go along the line."""

    tile: int
    """Positions a step."""
    num_warps: int
    num_stages: int
    resident: int
    """Programs for each processor."""
    least: int
    """Tiles of the shortest share."""
    folded: bool = False
    """As `walk_folded` goes, which takes `foldable` caches; else as `walk_piece`."""

    def rows(self, group: int) -> int:
        """Rows of the tile of `group` query heads: tensor cores take no fewer."""
        return max(8 if self.folded else 16, triton.next_power_of_2(group))

    def pieces(self, rows: int, size: int) -> int:
        """Partials, of `rows` heads of `size` numbers, that a program merges at a time."""
        room = _MERGED * 32 * self.num_warps // (rows * triton.next_power_of_2(size))
        return max(1, min(8, room))


def walk_for(
    size: int, dtype: torch.dtype, group: int, block_size: int, heads: int, processors: int
) -> Walk:
    """The walk for heads of `size` numbers in a cache of `dtype`.

    group: query heads of a KV head; heads: KV heads of all requests.
    """
    itemsize = dtype.itemsize
    if (
        itemsize <= _FOLDED_BYTES
        and dtype != torch.uint8
        and foldable(size, itemsize, group, block_size)
    ):
        return folded_walk(itemsize, group)
    return plain_walk(size, itemsize, group, crowded=heads >= _CROWD * processors)


def foldable(size: int, itemsize: int, group: int, block_size: int) -> bool:
    """Whether `walk_folded` takes such a cache, and one warp has room for its tiles."""
    return 16 <= size <= 128 and itemsize <= 2 and group <= 16 and block_size % 16 == 0


def folded_walk(itemsize: int, group: int) -> Walk:
    """Programs of up to 255 registers a thread: all of them have room at once.

    Shares are of 64 positions at least. More than one stage would take tiles through shared memory,
    where the 128 bytes of a thread lie side by side: each access would meet eight others.
    """
    tile = 64 if itemsize == 1 and group <= 8 else 32 // itemsize
    return Walk(tile, num_warps=1, num_stages=1, resident=8, least=64 // tile, folded=True)


def plain_walk(size: int, itemsize: int, group: int, *, crowded: bool = False) -> Walk:
    """For caches of every kind."""
    vector = triton.next_power_of_2(size) * itemsize
    tile = min(64, max(16, (1 << 14) // vector))
    few = vector <= _FEW_WARPS_BYTES and group <= 16  # more rows do not fit their registers
    # Blocks are looked up two stages before keys are loaded: five keep two tiles on their way.
    if few and crowded:
        return Walk(tile // 2, num_warps=1, num_stages=5, resident=4, least=1)
    return Walk(tile, num_warps=2 if few else 4, num_stages=5, resident=2, least=1)
