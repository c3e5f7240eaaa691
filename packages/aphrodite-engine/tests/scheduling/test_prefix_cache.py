"""What a lookup finds, against a definition that tries every length."""

from aphrodite_engine.kv import KVGroup, KVSpec
from aphrodite_engine.request import Request
from aphrodite_engine.sampling.params import SamplingParams
from aphrodite_engine.scheduling.blocks import BlockPool
from aphrodite_engine.scheduling.prefix import PrefixCache, block_hash, hash_root
from hypothesis import given, settings
from hypothesis import strategies as st

SIZE = 4


def request_of(tokens, root=hash_root()):  # noqa: B008
    return Request(
        id="r",
        choice=0,
        prompt=list(tokens),
        params=SamplingParams(),
        seed=0,
        max_tokens=8,
        stop_tokens=frozenset(),
        priority=0,
        arrival=0.0,
        hash_root=root,
    )


def groups_of(*windows):
    return tuple(KVGroup(KVSpec(1, 1, window), (i,)) for i, window in enumerate(windows))


def publish(cache, pool, tokens, groups, root=hash_root(), missing=()):  # noqa: B008
    """Compute a prompt, publish it, free it, and lose the (group, index) of `missing`."""
    request = request_of(tokens, root)
    count = len(tokens) // SIZE
    request.blocks = [pool.allocate(count) for _ in range(groups)]
    tables = [table.copy() for table in request.blocks]
    for group, index in missing:
        request.blocks[group][index] = 0
    cache.publish(request, len(tokens))
    for table in tables:
        pool.free(table)
    return tables


def test_hash_depends_on_tokens_and_everything_before():
    root = hash_root()
    first = block_hash(root, [1, 2])
    assert len(first) == 16
    others = [
        block_hash(root, [2, 1]),
        block_hash(root, [1, 3]),
        block_hash(first, [1, 2]),
        block_hash(hash_root("adapter"), [1, 2]),
    ]
    assert len({first, *others}) == 5
    assert hash_root("a", "b") != hash_root("ab")


def test_whole_blocks_are_found_but_never_the_whole_prompt():
    pool = BlockPool(32, SIZE)
    cache = PrefixCache(groups_of(None), pool)
    (table,) = publish(cache, pool, range(14), 1)
    assert cache.lookup(request_of([*range(14)])).blocks == [table[:3]]
    assert cache.lookup(request_of([*range(12)])).length == 8
    assert cache.lookup(request_of([*range(13)])).length == 12
    assert cache.lookup(request_of([*range(7), 99, *range(8, 14)])).length == 4
    assert cache.lookup(request_of([99, *range(1, 14)])).length == 0
    assert cache.lookup(request_of([5])).length == 0


def test_other_roots_share_nothing():
    pool = BlockPool(32, SIZE)
    cache = PrefixCache(groups_of(None), pool)
    publish(cache, pool, range(12), 1, hash_root("adapter"))
    assert cache.lookup(request_of(range(13))).length == 0
    assert cache.lookup(request_of(range(13), None)).length == 0
    assert cache.lookup(request_of(range(13), hash_root("adapter"))).length == 12


def test_evicted_head_ends_the_hit():
    pool = BlockPool(4, SIZE)
    cache = PrefixCache(groups_of(None), pool)
    publish(cache, pool, range(12), 1)
    pool.free(pool.allocate(1))
    assert cache.lookup(request_of(range(13))).length == 8


def test_window_needs_only_the_blocks_it_sees():
    pool = BlockPool(64, SIZE)
    cache = PrefixCache(groups_of(None, 5), pool)
    full, sliding = publish(cache, pool, range(24), 2, missing=[(1, 0), (1, 1), (1, 3)])
    hit = cache.lookup(request_of(range(25)))
    # At 24 the window reaches back to position 20: block 5 is enough.
    assert hit.length == 24
    assert hit.blocks == [full, [0] * 5 + sliding[5:]]
    # At 16 it would take block 3, which is gone; at 12 block 2 is there.
    assert cache.lookup(request_of([*range(16), 99])).length == 12


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from([None, 1, 2, 4, 5, 6, 9, 40]), min_size=1, max_size=3),
    st.integers(1, 40),
    st.data(),
)
def test_hit_is_the_longest_by_definition(windows, length, data):
    pool = BlockPool(64, SIZE)
    cache = PrefixCache(groups_of(*windows), pool)
    places = [(g, i) for g in range(len(windows)) for i in range(length // SIZE)]
    missing = data.draw(st.sets(st.sampled_from(places))) if places else set()
    publish(cache, pool, range(length), len(windows), missing=missing)

    def present(count):
        """Every key that a query at count * SIZE or later sees is there."""
        return all(
            (group, position // SIZE) not in missing
            for group, window in enumerate(windows)
            for position in range(
                0 if window is None else max(0, count * SIZE - window + 1), count * SIZE
            )
        )

    expected = max(count for count in range((length - 1) // SIZE + 1) if present(count))
    assert cache.lookup(request_of(range(length))).length == expected * SIZE
