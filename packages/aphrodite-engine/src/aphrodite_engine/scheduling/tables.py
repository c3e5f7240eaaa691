"""Block tables of requests: how they grow, and what leaves the window.

One table per KV group, indexed by position // block_size. Groups that see everything are given
the whole prompt's blocks at admission; sliding groups grow with each chunk and free behind it.
"""

from collections.abc import Sequence

from aphrodite_engine.kv import KVGroup
from aphrodite_engine.plan import BlockUpdate
from aphrodite_engine.request import Request
from aphrodite_engine.scheduling.blocks import NULL_BLOCK, BlockPool
from aphrodite_engine.scheduling.prefix import Hit


def blocks_needed(groups: Sequence[KVGroup], block_size: int, length: int, chunk: int) -> int:
    """Most blocks a request of `length` positions holds at once, computed `chunk` at a time."""
    return sum(_group_blocks(group, block_size, length, chunk) for group in groups)


def _group_blocks(group: KVGroup, block_size: int, length: int, chunk: int) -> int:
    whole = -(-length // block_size)
    if group.spec.window is None:
        return whole
    # A chunk sees window - 1 positions before it; n positions touch at most this many blocks.
    positions = group.spec.window - 1 + min(chunk, length)
    return min(whole, (positions + block_size - 2) // block_size + 1)


class BlockTables:
    """Grows, trims and releases the tables of requests over one pool."""

    def __init__(self, groups: Sequence[KVGroup], pool: BlockPool) -> None:
        self._groups = groups
        self._pool = pool
        self._size = pool.block_size
        self._sliding = [
            (index, group.spec.window)
            for index, group in enumerate(groups)
            if group.spec.window is not None
        ]
        # Sliding tables never run ahead of the others, and grow together.
        self._shortest = self._sliding[0][0] if self._sliding else 0

    def covers(self, request: Request, stop: int) -> bool:
        """Every group has blocks for the positions before `stop`."""
        return len(request.blocks[self._shortest]) * self._size >= stop

    def admission_cost(self, request: Request, hit: Hit, chunk: int) -> int:
        """Free blocks that it takes to compute all known tokens, `chunk` at a time."""
        cost = 0
        for group, table in zip(self._groups, hit.blocks, strict=True):
            held = sum(block != NULL_BLOCK for block in table)
            revived = sum(not self._pool.references(block) for block in table if block)
            needed = _group_blocks(group, self._size, request.known, chunk)
            cost += max(needed - held, 0) + revived
        return cost

    def open(self, request: Request, hit: Hit, stop: int) -> list[BlockUpdate]:
        """Begin the tables with what exists; cover `stop`, and all known tokens where kept."""
        self._pool.fork(block for table in hit.blocks for block in table)
        request.blocks = hit.blocks
        for group, table in zip(self._groups, request.blocks, strict=True):
            end = stop if group.spec.window is not None else request.known
            table += self._pool.allocate(-(-end // self._size) - len(table))
        row = _row(request)
        return [
            BlockUpdate(row=row, group=index, start=0, blocks=table.copy())
            for index, table in enumerate(request.blocks)
        ]

    def missing(self, request: Request, stop: int) -> int:
        """Blocks that the tables lack to cover the positions before `stop`."""
        count = -(-stop // self._size)
        return sum(max(0, count - len(table)) for table in request.blocks)

    def extend(self, request: Request, stop: int) -> list[BlockUpdate]:
        """Cover the positions before `stop`."""
        count, row = -(-stop // self._size), _row(request)
        updates: list[BlockUpdate] = []
        for index, table in enumerate(request.blocks):
            start = len(table)
            if start < count:
                blocks = self._pool.allocate(count - start)
                table += blocks
                updates.append(BlockUpdate(row=row, group=index, start=start, blocks=blocks))
        return updates

    def trim(self, request: Request, position: int) -> list[BlockUpdate]:
        """Free the blocks that no query at `position` or later sees."""
        row = _row(request)
        updates: list[BlockUpdate] = []
        for index, window in self._sliding:
            table = request.blocks[index]
            stop = min(max(0, position - window + 1) // self._size, len(table))
            start = stop
            while start and table[start - 1] != NULL_BLOCK:
                start -= 1
            if start < stop:
                self._pool.free(table[start:stop])
                passed = [NULL_BLOCK] * (stop - start)
                table[start:stop] = passed
                updates.append(BlockUpdate(row=row, group=index, start=start, blocks=passed))
        return updates

    def release(self, request: Request) -> None:
        """Free everything the request holds."""
        for table in request.blocks:
            self._pool.free(table)
        request.blocks = []


def _row(request: Request) -> int:
    assert request.row is not None, "a request without a row has no table on the device"
    return request.row
