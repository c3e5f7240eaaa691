# pyright: basic
# pyright: reportArgumentType=false
"""Tiles of whose K several programs have a part.

The blocks of K of all tiles form one line, which is cut into equal shares, one per program
(stream-K, arXiv 2301.03598). Programs that share a tile write partial sums, and the last of them to
arrive adds all of them, in the order of K. A program writes at most two: a tile's end (slot
2 * program), another's start.
"""

import triton
import triton.language as tl

from aphrodite_kernels.backends.triton.dense_tiles import Tiling, Workspace


def shares(
    tiling: Tiling, workspace: Workspace, *, rows: int, columns: int, blocks: int
) -> tuple[int, int]:
    """How many programs there are for [rows, columns], and how many blocks of K each has.

    Args:
        tiling: how many programs there shall be.
        workspace: where they meet.
        rows: of x.
        columns: of the result.
        blocks: of K, of each tile.

    Raises:
        ShapeError: the workspace has no room for that.
    """
    tiles = tiling.tiles(rows, columns)
    wanted = tiles * tiling.split or workspace.processors * tiling.resident
    share = -(-tiles * blocks // wanted)
    programs = -(-tiles * blocks // share)
    if share % blocks:
        workspace.check(tiling, tiles=tiles, pieces=2 * programs)
    return programs, share


@triton.jit
def gathered(
    total,
    partials,
    arrivals,
    program,
    tile,
    first,
    last,
    blocks,
    share,
    BLOCK_T: tl.constexpr,
    BLOCK_N: tl.constexpr,
    SHARED: tl.constexpr,
):
    """A tile's sum, and whether it is whole; total: over the program's blocks [first, last) of K.

    All are whole if tiles are not SHARED: a share is a tile.
    """
    whole = not SHARED or last - first == blocks
    if SHARED and not whole:
        start = tile * blocks
        slot = 2 * program + (first == 0)
        arrived = _publish(total, partials, arrivals, slot, tile, BLOCK_T, BLOCK_N)
        opener = start // share
        closer = (start + blocks - 1) // share
        if arrived == closer - opener:
            total = _sum_of_parts(partials, opener, closer, BLOCK_T, BLOCK_N)
            tl.store(arrivals + tile, 0)
            whole = True
    return total, whole


@triton.jit
def _publish(
    total,
    partials,
    arrivals,
    slot,
    tile,
    BLOCK_T: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Write a partial sum to its slot; how many programs had done so for this tile before."""
    tl.store(_slot_places(partials, slot, BLOCK_T, BLOCK_N), total)
    tl.debug_barrier()  # every thread's part is written before one thread says so
    return tl.atomic_add(arrivals + tile, 1, sem="acq_rel", scope="gpu")


@triton.jit
def _sum_of_parts(partials, opener, closer, BLOCK_T: tl.constexpr, BLOCK_N: tl.constexpr):
    """The whole tile, from the parts that the programs opener … closer have written."""
    places = _slot_places(partials, 2 * opener + 1, BLOCK_T, BLOCK_N)
    total = tl.load(places, cache_modifier=".cg")
    for program in tl.range(opener + 1, closer + 1, num_stages=1):
        places = _slot_places(partials, 2 * program, BLOCK_T, BLOCK_N)
        total += tl.load(places, cache_modifier=".cg")
    return total


@triton.jit
def _slot_places(partials, slot, BLOCK_T: tl.constexpr, BLOCK_N: tl.constexpr):
    """Addresses of a partial sum [BLOCK_N, BLOCK_T]."""
    inside = tl.arange(0, BLOCK_N)[:, None] * BLOCK_T + tl.arange(0, BLOCK_T)[None, :]
    return partials + slot * (BLOCK_N * BLOCK_T) + inside
