"""The pool of KV blocks, and what is free for it."""

import torch
from aphrodite_engine.execution.memory import (
    _container_limit,
    allocate_caches,
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
