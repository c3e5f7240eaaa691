"""Truncated and bit-flipped files: an error of ours or a result, never anything else."""

import pytest
from aphrodite_quant import QuantError, Weights, open_checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

FLIPS = st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(1, 255)), max_size=4)
CUT = st.one_of(st.none(), st.integers(0, 1 << 16))
RELAXED = settings(
    max_examples=200, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def damaged(data, flips, cut):
    changed = bytearray(data)
    for position, mask in flips:
        changed[position % len(changed)] ^= mask
    return bytes(changed if cut is None else changed[: cut % len(changed)])


def read_everything(path):
    try:
        checkpoint = open_checkpoint(path)
        weights = Weights.of(checkpoint)
    except QuantError as error:
        assert str(error)
        return
    for name in checkpoint.store.names():
        module, _, _ = name.rpartition(".")
        for read in (weights.packed, lambda module: weights.tensor(f"{module}.bias")):
            try:
                read(module)
            except QuantError as error:
                assert str(error)


@pytest.fixture
def gguf_bytes(small_gguf):
    return small_gguf.read_bytes()


@given(flips=FLIPS, cut=CUT)
@RELAXED
def test_damaged_gguf(small_gguf, gguf_bytes, flips, cut):
    small_gguf.unlink()  # a new file: the last one may still be mapped
    small_gguf.write_bytes(damaged(gguf_bytes, flips, cut))
    read_everything(small_gguf)


@pytest.fixture
def safetensors_bytes(small_safetensors):
    return (small_safetensors / "model.safetensors").read_bytes()


@given(flips=FLIPS, cut=CUT)
@RELAXED
def test_damaged_safetensors(small_safetensors, safetensors_bytes, flips, cut):
    path = small_safetensors / "model.safetensors"
    path.unlink()
    path.write_bytes(damaged(safetensors_bytes, flips, cut))
    read_everything(small_safetensors)


@given(flips=FLIPS, cut=CUT)
@RELAXED
def test_damaged_config(small_safetensors, flips, cut):
    text = b'{"model_type": "llama", "quantization_config": {"quant_method": "gptq"}}'
    (small_safetensors / "config.json").write_bytes(damaged(text, flips, cut))
    read_everything(small_safetensors)
