"""Who holds which KV block.

A pure data structure over block numbers: reference counts, a queue of free blocks, and keys under
which the contents of a block can be found again until the block is given to someone else. It
knows nothing of requests, tokens, windows or devices; every KV group draws on the same pool.
"""

from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterable, Sequence

NULL_BLOCK = 0
"""Never owned: tables point there where a block has left the window."""


class BlockPool:
    """`num_blocks` blocks of `block_size` positions, the null block included."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        if num_blocks < 2 or block_size < 1:
            raise ValueError(
                f"a pool needs the null block, one more and a block size of at least 1; "
                f"got {num_blocks} blocks of {block_size}"
            )
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._references = [0] * num_blocks
        # Free blocks, the next to be taken first: blocks without a key, then cached ones from the
        # least to the most recently used.
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(1, num_blocks))
        self._keys: list[Hashable | None] = [None] * num_blocks
        self._cached: dict[Hashable, int] = {}

    @property
    def capacity(self) -> int:
        """Blocks that can be owned."""
        return self.num_blocks - 1

    @property
    def available(self) -> int:
        """Blocks that nobody holds; cached ones count."""
        return len(self._free)

    def references(self, block: int) -> int:
        """Holders of a block."""
        return self._references[block]

    def allocate(self, count: int) -> list[int]:
        """Take blocks; what was cached in them is forgotten. At most `available`."""
        assert count <= len(self._free), f"{count} blocks wanted, {len(self._free)} are free"
        blocks = [self._free.popitem(last=False)[0] for _ in range(count)]
        for block in blocks:
            self._references[block] = 1
            key = self._keys[block]
            if key is not None:
                del self._cached[key]
                self._keys[block] = None
        return blocks

    def fork(self, blocks: Iterable[int]) -> None:
        """Hold blocks once more: blocks someone holds, or free ones that are still cached."""
        for block in blocks:
            if block == NULL_BLOCK:
                continue
            if not self._references[block]:
                assert self._keys[block] is not None, f"block {block} is free and holds nothing"
                del self._free[block]
            self._references[block] += 1

    def free(self, blocks: Sequence[int]) -> None:
        """Hold blocks once less; null entries are passed over.

        They join the queue from the last to the first, so that of a cached chain the tail, which
        is worth nothing without its head, is taken first.
        """
        for block in reversed(blocks):
            if block == NULL_BLOCK:
                continue
            assert self._references[block] > 0, f"block {block} is free already"
            self._references[block] -= 1
            if not self._references[block]:
                self._free[block] = None
                if self._keys[block] is None:
                    self._free.move_to_end(block, last=False)

    def touch(self, blocks: Sequence[int]) -> None:
        """Count cached blocks as just used, without holding them."""
        for block in reversed(blocks):
            if block in self._free and self._keys[block] is not None:
                self._free.move_to_end(block)

    def publish(self, block: int, key: Hashable) -> None:
        """Make a held block findable; the first block of a key keeps it."""
        assert self._references[block] > 0, f"block {block} is published but nobody holds it"
        if key not in self._cached and self._keys[block] is None:
            self._cached[key] = block
            self._keys[block] = key

    def find(self, key: Hashable) -> int | None:
        """The block published under a key, if nobody has taken it since."""
        return self._cached.get(key)

    def check(self, held: Iterable[Sequence[int]] | None = None) -> None:
        """Verify every invariant; `held`: the tables of all holders, to be counted too."""
        assert self._references[NULL_BLOCK] == 0, "the null block is held"
        assert self._keys[NULL_BLOCK] is None, "the null block is cached"
        free = {block for block in range(1, self.num_blocks) if not self._references[block]}
        assert free == set(self._free), "the free queue is not the blocks that nobody holds"
        assert min(self._references) >= 0, "a block is held less than never"
        keyed = {key: block for block, key in enumerate(self._keys) if key is not None}
        assert keyed == self._cached, "keys and cached blocks disagree"
        if held is not None:
            counts = Counter(block for table in held for block in table if block != NULL_BLOCK)
            found = {block: n for block, n in enumerate(self._references) if n}
            assert found == dict(counts), "reference counts differ from the tables of the holders"
