"""What is asked, what the model is and what the machine has make what runs, or a refusal."""

from dataclasses import dataclass, replace

import pytest
import torch
from aphrodite_engine.config import EngineConfig
from aphrodite_engine.errors import ConfigError
from aphrodite_engine.kv import KVSpec
from aphrodite_engine.loading.budget import MemoryUse
from aphrodite_engine.loading.resolve import Machine, Measured, ModelFacts, named_dtype, resolve

MiB, GiB = 2**20, 2**30


@dataclass(frozen=True)
class Facts:
    """A model of 10 layers whose KV takes 1 KiB per position and layer in 16 bits."""

    vocab_size: int = 1000
    hidden_size: int = 64
    mlp_size: int = 128
    max_position: int = 4096
    kv_specs: tuple = (KVSpec(2, 128),) * 10


MODEL = ModelFacts(path="m.gguf", format="gguf", weight_bytes=100 * MiB, config=Facts())
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
CPU = Machine(device="cpu", dtype="float32", free_memory=8 * GiB, kv_dtypes=FLOATS, threads=4)
GPU = Machine(
    device="cuda:0",
    dtype="bfloat16",
    free_memory=80 * GiB,
    kv_dtypes=(*FLOATS, torch.float8_e4m3fn, torch.int8),
    threads=4,
)


def made(machine=CPU, model=MODEL, measured=None, **options):
    return resolve(EngineConfig(model="m", **options), model, machine, measured)


def test_defaults_on_a_cpu():
    config, budget = made()
    assert (config.max_num_seqs, config.max_num_batched_tokens) == (32, 512)
    assert (config.dtype, config.kv_cache_dtype, config.threads) == ("float32", "float16", 4)
    assert config.max_model_len == 4096
    assert config.num_blocks == 32 * 256 + 1
    assert budget.kv_cache == config.num_blocks * 16 * 10 * 1024
    assert budget.kv_positions == 32 * 4096


def test_defaults_on_a_gpu():
    config, _ = made(GPU)
    assert (config.max_num_seqs, config.max_num_batched_tokens) == (512, 8192)
    assert config.kv_cache_dtype == "bfloat16"
    config, _ = made(replace(GPU, free_memory=24 * GiB))
    assert (config.max_num_seqs, config.max_num_batched_tokens) == (256, 8192)


def test_the_kv_cache_is_what_context_times_concurrency_needs():
    assert made(max_model_len=100, max_num_seqs=3).config.num_blocks == 3 * 7 + 1


def test_the_kv_cache_is_bounded_by_what_is_free():
    config, budget = made(replace(CPU, free_memory=512 * MiB))
    assert config.max_model_len == 4096
    assert budget.kv_cache + budget.weights + budget.activations <= 0.9 * 512 * MiB
    assert budget.kv_cache > 0.9 * 512 * MiB - budget.weights - budget.activations - 2 * MiB


def test_without_a_wish_the_context_shrinks_to_what_fits():
    config, _ = made(replace(CPU, free_memory=150 * MiB))
    assert 1000 < config.max_model_len < 4096
    assert config.num_blocks == -(-config.max_model_len // 16) + 1


def test_a_wish_that_does_not_fit_is_refused_with_numbers():
    with pytest.raises(ConfigError) as caught:
        made(replace(CPU, free_memory=150 * MiB), max_model_len=4096)
    message = str(caught.value)
    assert "one request of 4096 tokens takes 40.2 MiB of KV cache" in message
    assert "of 150.0 MiB free memory 90% may be used, 100.0 MiB go to weights" in message
    assert "lower max_model_len" in message


def test_weights_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match=r"100\.0 MiB go to weights"):
        made(replace(CPU, free_memory=90 * MiB))


def test_sliding_layers_need_their_window_only():
    sliding = replace(MODEL, config=Facts(kv_specs=(KVSpec(2, 128, 64),) * 9 + (KVSpec(2, 128),)))
    config, _ = made(model=sliding, max_num_seqs=1, max_num_batched_tokens=16)
    groups, window_blocks = 9, 6
    assert config.num_blocks == 256 + groups * window_blocks + 1


def test_kv_memory_as_given():
    budget = made(kv_cache_memory=100 * MiB).budget
    assert budget.kv_cache <= 100 * MiB < budget.kv_cache + 16 * 10 * 1024
    with pytest.raises(ConfigError, match=r"kv_cache_memory is 9\.00 GiB, but"):
        made(kv_cache_memory=9 * GiB)


def test_an_eight_bit_cache_holds_nearly_twice_as_many_tokens():
    machine = replace(GPU, free_memory=512 * MiB)
    half, config_and_budget = made(machine).budget, made(machine, kv_cache_dtype="fp8")
    assert config_and_budget.config.kv_cache_dtype == "fp8_e4m3"
    assert 1.9 < config_and_budget.budget.kv_positions / half.kv_positions <= 2


def test_a_four_bit_cache_holds_nearly_four_times_as_many_tokens():
    machine = replace(GPU, free_memory=512 * MiB, kv_dtypes=(*GPU.kv_dtypes, torch.uint8))
    half, quarter = made(machine).budget, made(machine, kv_cache_dtype="int4").budget
    assert 3.6 < quarter.kv_positions / half.kv_positions <= 4


def test_bf16_is_bfloat16():
    assert made(kv_cache_dtype="bf16").config.kv_cache_dtype == "bfloat16"


def test_a_cache_that_the_backend_does_not_have_is_refused():
    with pytest.raises(ConfigError, match=r"is fp8, but the kernels for cpu keep .* in float32, b"):
        made(kv_cache_dtype="fp8")
    with pytest.raises(ConfigError, match=r"is fp8_e5m2, .* float16, fp8_e4m3, int8; choose one"):
        made(GPU, kv_cache_dtype="fp8_e5m2")


def test_a_device_needs_room_for_the_tables_of_all_rows():
    short, long = (made(GPU, max_model_len=length).budget for length in (64, 4096))
    tokens, blocks = 513 * (4096 - 64) * 4, 513 * (64 - 1) * 4
    repetitions = tokens  # a number for each token
    assert long.activations - short.activations == tokens + repetitions + blocks


def use(free=512 * MiB, weights=100 * MiB, activations=50 * MiB):
    return MemoryUse(free=free, weights=weights, activations=activations)


def test_measured_memory_replaces_the_estimate():
    machine = replace(GPU, free_memory=512 * MiB)
    planned = made(machine)

    def settled(**found):
        return made(machine, measured=Measured(use(**found), planned.config))

    measured = settled(activations=200 * MiB)
    assert measured.budget.activations > 200 * MiB > planned.budget.activations
    assert measured.config.num_blocks < planned.config.num_blocks
    shared = settled(free=300 * MiB)
    assert shared.budget.kv_cache + 150 * MiB < 0.9 * 300 * MiB
    assert settled(free=150 * MiB, activations=0).config.max_model_len < 4096
    assert settled(activations=0).config.num_blocks == planned.config.num_blocks


def test_memory_that_was_granted_is_as_much_as_there_is():
    machine = replace(GPU, free_memory=512 * MiB)
    asked = {"kv_cache_memory": 300 * MiB, "max_num_seqs": 8}
    assert 299 * MiB < made(machine, **asked).budget.kv_cache <= 300 * MiB
    measured = Measured(use(free=400 * MiB), made(machine, **asked).config)
    assert 180 * MiB < made(machine, measured=measured, **asked).budget.kv_cache < 220 * MiB
    with pytest.raises(ConfigError, match=r"kv_cache_memory is 300\.0 MiB, but"):
        made(replace(GPU, free_memory=400 * MiB), **asked)


def test_the_budget_is_a_table():
    lines = str(made().budget).splitlines()
    assert lines[0].split() == [
        "free",
        "memory",
        "8.00",
        "GiB",
        "90%",
        "of",
        "it",
        "may",
        "be",
        "used",
    ]
    assert [line.split()[0] for line in lines] == ["free", "weights", "activations", "KV", "left"]


REFUSALS = {
    "dtype 'int8'": {"dtype": "int8"},
    "kv_cache_dtype is 'int3'": {"kv_cache_dtype": "int3"},
    "scheduling_policy is 'random'": {"scheduling_policy": "random"},
    "max_num_seqs must be at least 1, found 0": {"max_num_seqs": 0},
    "block_size must be at most 256, found 1024": {"block_size": 1024},
    "gpu_memory_utilization must be above 0": {"gpu_memory_utilization": 1.5},
    "tensor_parallel_size must be 1, found 2": {"tensor_parallel_size": 2},
    "quantization is gptq, but m.gguf is in the format gguf": {"quantization": "gptq"},
    "max_model_len is 5000, but the model was made for 4096": {"max_model_len": 5000},
}


@pytest.mark.parametrize("message", REFUSALS)
def test_what_cannot_be_honoured_is_refused(message, monkeypatch):
    with pytest.raises(ConfigError) as caught:
        made(**REFUSALS[message])
    assert message.replace("dtype 'int8'", "dtype is 'int8'") in str(caught.value)


def test_dtypes_by_name():
    assert named_dtype("auto") is None
    assert str(named_dtype("float16")) == "torch.float16"
    with pytest.raises(ConfigError, match="dtype is 'half', which is not one of auto, float32"):
        named_dtype("half")
