"""Which blocks of the past a new request can share.

The hash of a full block covers its tokens and, through its parent, everything before it; the root
of the chain says who may share. One chain serves all KV groups: blocks are kept under (group,
hash). Blocks are published when the step that wrote them has come back, and only for tokens that
belong to the request, so nothing computed past a stop or by a failed row is ever found here.
"""

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from aphrodite_engine.kv import KVGroup
from aphrodite_engine.request import Request
from aphrodite_engine.scheduling.blocks import NULL_BLOCK, BlockPool


def block_hash(parent: bytes, tokens: Sequence[int]) -> bytes:
    """128 bits that stand for a block and all before it."""
    return hashlib.blake2b(parent + array("q", tokens).tobytes(), digest_size=16).digest()


def hash_root(*keys: str) -> bytes:
    """Parent of the first block: only chains of equal keys share blocks."""
    return hashlib.blake2b("\0".join(keys).encode(), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class Hit:
    """Blocks that exist already."""

    length: int
    """Positions they cover, whole blocks."""
    blocks: list[list[int]]
    """Per KV group: the start of a block table; 0 where the window has passed."""


class PrefixCache:
    """Looks up and publishes blocks by what is in them."""

    def __init__(self, groups: Sequence[KVGroup], pool: BlockPool) -> None:
        self._pool = pool
        self._size = pool.block_size
        self._windows = [group.spec.window for group in groups]
        self._full = [index for index, window in enumerate(self._windows) if window is None]

    def miss(self) -> Hit:
        """What a request gets that shares nothing."""
        return Hit(0, [[] for _ in self._windows])

    def lookup(self, request: Request) -> Hit:
        """The longest beginning that every group still has; never all the known tokens."""
        if request.hash_root is None:
            return self.miss()
        count = self._reach_full(request, (request.known - 1) // self._size)
        while (agreed := self._reach_sliding(request, count)) < count:
            count = agreed
        tables = [
            [self._block(request, group, index) for index in range(count)]
            if window is None
            else self._window_table(request, group, window, count)
            for group, window in enumerate(self._windows)
        ]
        return Hit(count * self._size, tables)

    def publish(self, request: Request, stop: int) -> None:
        """Make the blocks that became full by committing up to position `stop` findable."""
        if request.hash_root is None:
            return
        for index in range(request.committed // self._size, stop // self._size):
            digest = self._hash(request, index)
            for group, table in enumerate(request.blocks):
                if table[index] != NULL_BLOCK:
                    self._pool.publish(table[index], (group, digest))

    def _hash(self, request: Request, index: int) -> bytes:
        """Hash of one block; extends the request's chain as far as needed."""
        hashes, size = request.hashes, self._size
        while len(hashes) <= index:
            start = len(hashes) * size
            parent = hashes[-1] if hashes else request.hash_root
            assert parent is not None, "the request shares no blocks"
            hashes.append(block_hash(parent, request.tokens(start, start + size)))
        return hashes[index]

    def _find(self, request: Request, group: int, index: int) -> int | None:
        return self._pool.find((group, self._hash(request, index)))

    def _block(self, request: Request, group: int, index: int) -> int:
        block = self._find(request, group, index)
        assert block is not None, "a block of a hit is gone"
        return block

    def _window_table(self, request: Request, group: int, window: int, count: int) -> list[int]:
        first = self._first_visible(count, window)
        found = [self._block(request, group, index) for index in range(first, count)]
        return [NULL_BLOCK] * first + found

    def _reach_full(self, request: Request, count: int) -> int:
        """Blocks, at most `count`, that all full groups have without a gap."""
        for index in range(count if self._full else 0):
            if any(self._find(request, group, index) is None for group in self._full):
                return index
        return count

    def _reach_sliding(self, request: Request, count: int) -> int:
        """The most blocks, at most `count`, before which each sliding group has its window.

        A block missing at `index` rules out every length between it and the length tried, since
        their windows reach back at least as far: the search goes on from `index`.
        """
        for group, window in enumerate(self._windows):
            if window is None:
                continue
            index = count - 1
            while index >= self._first_visible(count, window):
                if self._find(request, group, index) is None:
                    count = index
                index -= 1
        return count

    def _first_visible(self, count: int, window: int) -> int:
        """First block that a query at position count * block_size sees."""
        return max(0, count * self._size - window + 1) // self._size
