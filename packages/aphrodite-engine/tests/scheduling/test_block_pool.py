"""The pool against a model of it, and its order of eviction."""

import pytest
from aphrodite_engine.scheduling.blocks import NULL_BLOCK, BlockPool
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule


class PoolMachine(RuleBasedStateMachine):
    """Holders with tables; `contents` is what each key must lead to while it can be found."""

    def __init__(self):
        super().__init__()
        self.pool = BlockPool(12, 4)
        self.tables = []
        self.contents = {}
        self.keys = 0

    @rule(count=st.integers(1, 4))
    def allocate(self, count):
        if count <= self.pool.available:
            taken = self.pool.allocate(count)
            held = {block for table in self.tables for block in table}
            assert NULL_BLOCK not in taken
            assert not held & set(taken)
            self.contents = {k: b for k, b in self.contents.items() if b not in taken}
            self.tables.append(taken)

    @precondition(lambda self: self.tables)
    @rule(data=st.data())
    def free(self, data):
        table = self.tables.pop(data.draw(st.integers(0, len(self.tables) - 1)))
        self.pool.free([NULL_BLOCK, *table])

    @precondition(lambda self: self.tables)
    @rule(data=st.data())
    def publish(self, data):
        block = data.draw(st.sampled_from([b for table in self.tables for b in table]))
        self.keys += 1
        self.pool.publish(block, self.keys)
        if block not in self.contents.values():
            self.contents[self.keys] = block

    @precondition(lambda self: self.contents)
    @rule(data=st.data())
    def share(self, data):
        block = self.pool.find(data.draw(st.sampled_from(sorted(self.contents))))
        assert block is not None
        self.pool.fork([NULL_BLOCK, block])
        self.tables.append([block])

    @precondition(lambda self: self.contents)
    @rule(data=st.data())
    def touch(self, data):
        self.pool.touch([self.contents[data.draw(st.sampled_from(sorted(self.contents)))]])

    @invariant()
    def holds(self):
        self.pool.check(self.tables)
        held = {block for table in self.tables for block in table}
        assert self.pool.available == self.pool.capacity - len(held)
        for key in range(1, self.keys + 1):
            assert self.pool.find(key) == self.contents.get(key)


PoolMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, derandomize=True
)
test_pool_agrees_with_its_model = PoolMachine.TestCase


def cached(pool, count):
    """Blocks published under their own numbers, and freed."""
    blocks = pool.allocate(count)
    for block in blocks:
        pool.publish(block, block)
    pool.free(blocks)
    return blocks


def test_tail_of_a_chain_is_evicted_first():
    pool = BlockPool(5, 4)
    blocks = cached(pool, 4)
    assert pool.allocate(3) == blocks[:0:-1]
    assert [pool.find(block) for block in blocks] == [blocks[0], None, None, None]


def test_blocks_without_contents_are_taken_before_cached_ones():
    pool = BlockPool(5, 4)
    kept = cached(pool, 2)
    plain = pool.allocate(2)
    pool.free(plain)
    assert set(pool.allocate(2)) == set(plain)
    assert [pool.find(block) for block in kept] == kept


def test_touched_blocks_are_evicted_last():
    pool = BlockPool(4, 4)
    first, second, third = cached(pool, 3)
    pool.touch([third])
    assert pool.allocate(2) == [second, first]


def test_first_block_keeps_its_key():
    pool = BlockPool(4, 4)
    first, second = pool.allocate(2)
    pool.publish(first, "key")
    pool.publish(second, "key")
    assert pool.find("key") == first
    pool.free([first, second])
    pool.check([])


def test_shared_block_is_free_when_the_last_holder_goes():
    pool = BlockPool(3, 4)
    blocks = pool.allocate(1)
    pool.fork(blocks)
    assert pool.references(blocks[0]) == 2
    pool.free(blocks)
    assert pool.available == 1
    pool.free(blocks)
    assert pool.available == 2


def test_misuse_is_noticed():
    pool = BlockPool(3, 4)
    blocks = pool.allocate(1)
    pool.free(blocks)
    with pytest.raises(AssertionError, match="is free already"):
        pool.free(blocks)
    with pytest.raises(AssertionError, match="holds nothing"):
        pool.fork(blocks)
    with pytest.raises(AssertionError, match="3 blocks wanted, 2 are free"):
        pool.allocate(3)
    with pytest.raises(AssertionError, match="tables of the holders"):
        pool.check([[1]])
    with pytest.raises(ValueError, match="null block"):
        BlockPool(1, 4)
