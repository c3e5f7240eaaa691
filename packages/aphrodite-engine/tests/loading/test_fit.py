"""A model gets the memory that is there, not that which was hoped for."""

from types import SimpleNamespace

import pytest
import torch
from aphrodite_engine.config import EngineConfig
from aphrodite_engine.errors import ConfigError
from aphrodite_engine.execution.limits import Limits
from aphrodite_engine.execution.memory import allocate_caches
from aphrodite_engine.kv import KVSpec, group_layers
from aphrodite_engine.loading import fit, measure
from aphrodite_engine.loading.errors import loading_error
from aphrodite_engine.loading.resolve import ModelFacts
from aphrodite_kernels.backends import reference

CPU = torch.device("cpu")
SPECS = (KVSpec(2, 8),) * 2 + (KVSpec(2, 8, 16),) * 2
CONFIG = SimpleNamespace(
    vocab_size=50, hidden_size=8, mlp_size=16, max_position=64, tied=True, kv_specs=SPECS
)
FACTS = ModelFacts(path="m", format="dense", weight_bytes=1000, config=CONFIG)


SHORTAGE = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB of "
    "which 1.00 GiB is free. Including non-PyTorch memory, this process has much in use."
)


class Model:
    """Remembers what it was run on."""

    softcap = None

    def forward(self, input):
        self.input = input
        return torch.zeros(len(input.tokens), 8)

    def logits(self, hidden):
        self.outputs = len(hidden)
        return torch.zeros(len(hidden), 50)


@pytest.fixture
def source(monkeypatch):
    monkeypatch.setattr(fit, "load_model", lambda *arguments: SimpleNamespace(model=Model()))
    store = SimpleNamespace(names=lambda: ["lm_head.weight"])
    return SimpleNamespace(config=CONFIG, facts=FACTS, checkpoint=SimpleNamespace(store=store))


def fitted(source, say=print, **options):
    backend = reference.create(CPU, threads=None, dtype=None)
    config = EngineConfig(model="m", max_num_seqs=4, max_num_batched_tokens=32, **options)
    return fit.fit_model(source, backend, config, say)


def test_a_model_gets_what_was_planned(source):
    said = []
    model = fitted(source, said.append)
    assert len(model.memory.caches) == 4
    assert len(model.memory.caches[0].key) == model.config.num_blocks
    assert any(line.startswith("loaded 0.0 MiB in ") for line in said)
    assert not any("instead of" in line for line in said)


def test_eight_bits(source):
    cache = fitted(source, kv_cache_dtype="fp8").memory.caches[0]
    assert cache.key.dtype == torch.float8_e4m3fn and cache.key_scale is not None


def test_four_bits(source):
    cache = fitted(source, kv_cache_dtype="int4").memory.caches[0]
    assert cache.key.shape[1:] == (16, 2, 4) and cache.key_scale.shape[1:] == (16, 2)


def out_of_memory_above(most):
    def allocate(groups, blocks, *others):
        if blocks > most:
            raise torch.OutOfMemoryError(SHORTAGE)
        return allocate_caches(groups, blocks, *others)

    return allocate


def test_a_pool_that_does_not_fit_shrinks_and_this_is_said(source, monkeypatch):
    planned = fitted(source)
    monkeypatch.setattr(fit, "allocate_caches", out_of_memory_above(planned.config.num_blocks - 3))
    said = []
    model = fitted(source, said.append)
    assert model.config.num_blocks == len(model.memory.caches[0].key) < planned.config.num_blocks
    assert model.budget.kv_cache < planned.budget.kv_cache
    instead = f"holds {model.budget.kv_positions} tokens instead of {planned.budget.kv_positions}"
    assert instead in said[-1]


def test_a_pool_too_small_for_one_request_is_refused(source, monkeypatch):
    monkeypatch.setattr(fit, "allocate_caches", out_of_memory_above(2))
    with pytest.raises(MemoryError) as caught:
        fitted(source)
    error = loading_error(caught.value)
    assert isinstance(error, ConfigError)
    assert "no room for the 9 KV blocks of one request (CUDA out of memory. Tried" in str(error)
    assert "which 1.00 GiB is free); lower --max-model-len" in str(error)


@pytest.mark.parametrize(("positions", "lengths"), [(64, [32]), (15, [15, 15, 2]), (7, [7] * 4)])
def test_the_largest_step_is_run(positions, lengths):
    model, limits = Model(), Limits(rows=4, tokens=32, positions=positions, block_size=4)
    caches = allocate_caches(group_layers(SPECS), 1, 4, torch.float32, CPU)
    measure.run_largest_step(model, limits, caches)
    meta = model.input.attention[-1]
    assert meta.seq_lens.tolist() == meta.query_starts.diff().tolist() == lengths
    assert len(model.input.tokens) == len(model.input.positions) == sum(lengths)
    assert model.input.positions.tolist() == [p for length in lengths for p in range(length)]
    assert meta.block_tables.shape == (len(lengths), limits.blocks) and not meta.block_tables.any()
    assert meta.slots.max() < 4 and model.outputs == 4
