"""How many blocks a request can hold at once."""

from itertools import product

import pytest
from aphrodite_engine.kv import KVGroup, KVSpec
from aphrodite_engine.scheduling.tables import blocks_needed

LENGTH = 60


def most_touched(size, window, chunk):
    """Most blocks between the first position a chunk sees and its last, over every chunk."""
    return max(
        (start + count - 1) // size - max(0, start - window + 1) // size + 1
        for start in range(LENGTH)
        for count in range(1, min(chunk, LENGTH - start) + 1)
    )


@pytest.mark.parametrize("size", [1, 2, 4, 7])
def test_window_bound_is_exact(size):
    for window, chunk in product((1, 2, 3, 4, 5, 8, 13), (1, 2, 4, 5, 9)):
        group = KVGroup(KVSpec(1, 1, window), (0,))
        assert blocks_needed([group], size, LENGTH, chunk) == most_touched(size, window, chunk)


def test_groups_add_up_and_full_ones_keep_everything():
    full, sliding = KVGroup(KVSpec(1, 1), (0,)), KVGroup(KVSpec(1, 1, 4), (1,))
    assert blocks_needed([full], 4, 33, 8) == 9
    assert blocks_needed([full, sliding, sliding], 4, 33, 8) == 9 + 2 * 4
    assert blocks_needed([full, sliding], 4, 3, 8) == 2
