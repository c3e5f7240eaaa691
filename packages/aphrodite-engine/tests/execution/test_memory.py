"""The pool of KV blocks, and what is free for it."""

import pytest
import torch
from aphrodite_engine.execution.memory import (
    _container_limit,
    allocate_caches,
    allocate_most,
    block_bytes,
    free_memory,
    pool_depth,
)
from aphrodite_engine.kv import KVSpec, group_layers

CPU = torch.device("cpu")


def test_groups_share_one_pool():
    groups = group_layers([KVSpec(2, 8, 16)] * 4 + [KVSpec(2, 8)] * 2)
    assert [len(group.layers) for group in groups] == [2, 2, 2]
    caches = allocate_caches(groups, 5, 4, torch.float16, CPU)
    assert len(caches) == 6 and pool_depth(groups) == 2
    assert caches[0].key.shape == (5, 4, 2, 8)
    assert caches[0].key.data_ptr() == caches[2].key.data_ptr() == caches[4].key.data_ptr()
    pool = {cache.key.data_ptr() for cache in caches} | {cache.value.data_ptr() for cache in caches}
    assert len(pool) == 4
    stored = sum(tensor.nbytes for cache in caches[:2] for tensor in (cache.key, cache.value))
    assert stored == 5 * block_bytes(groups, 4, torch.float16)


def test_a_narrow_kind_uses_part_of_a_block():
    groups = group_layers([KVSpec(2, 8), KVSpec(1, 8, 16)])
    wide, narrow = allocate_caches(groups, 3, 4, torch.bfloat16, CPU)
    narrow.key[2] = 1
    assert wide.key[:2].sum() == 0
    assert narrow.key.shape == (3, 4, 1, 8)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8])
def test_a_quantised_pool_has_scales(dtype):
    groups = group_layers([KVSpec(2, 8), KVSpec(4, 2, 16)])  # the narrow kind has more vectors
    wide, many = allocate_caches(groups, 3, 4, dtype, CPU)
    assert wide.key.dtype == dtype and wide.key.shape == (3, 4, 2, 8)
    assert wide.key_scale.dtype == torch.float32 and wide.key_scale.shape == (3, 4, 2)
    assert many.value_scale.shape == (3, 4, 4)
    many.value_scale[2] = 1
    assert wide.value_scale[:2].sum() == 0 and many.key_scale.sum() == 0
    assert block_bytes(groups, 4, dtype) == 2 * (4 * 2 * 8 + 4 * 4 * 4)


def test_a_quantised_pool_holds_nearly_twice_as_much():
    groups = group_layers([KVSpec(8, 128)] * 32)
    half, one = (block_bytes(groups, 16, dtype) for dtype in (torch.bfloat16, torch.float8_e4m3fn))
    assert one == half // 2 * (1 + 4 / 128)


@pytest.mark.parametrize("room", [100, 70, 10])
def test_a_pool_that_does_not_fit_shrinks(room):
    asked = []

    def allocate(blocks):
        asked.append(blocks)
        if blocks > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate much")
        return (blocks,)

    (blocks,) = allocate_most(allocate, 100, 10)
    assert 0.9 * room <= blocks <= room and asked == sorted(asked, reverse=True)


def test_a_pool_for_less_than_one_request_is_refused():
    def allocate(blocks):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate much")

    with pytest.raises(MemoryError, match=r"no room for the 10 KV blocks .*\(CUDA out of memory"):
        allocate_most(allocate, 100, 10)


def test_free_memory_is_measured():
    assert 2**20 < free_memory(CPU) < 2**50


def test_a_containers_limit_counts(tmp_path):
    assert _container_limit(tmp_path) is None
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 150\n")
    assert _container_limit(tmp_path) == 450
    (tmp_path / "memory.max").write_text("max\n")
    assert _container_limit(tmp_path) is None
