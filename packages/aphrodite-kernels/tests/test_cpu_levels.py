"""The compiled ops on instruction sets below the best one of this machine."""

import pytest
import torch
from aphrodite_kernels import BackendError, Dense, KVCache
from aphrodite_kernels.backends import cpu
from aphrodite_kernels.backends.cpu.library import LEVELS
from aphrodite_kernels.testing import conformance_cases

if cpu.obstacle() is not None:
    pytest.skip(f"the CPU backend cannot run: {cpu.obstacle()}", allow_module_level=True)

CPU = torch.device("cpu")
CASES = [
    case
    for case in conformance_cases()
    # Products have their own tests; of the head shapes, one of each kind is enough.
    if not case.name.startswith(("matmul", "embed-Q", "embed-I"))
    and not case.name.startswith(("attention-4q", "rotate-4q"))
]


@pytest.fixture(scope="module", params=LEVELS[:2])
def backend(request):
    return cpu.backend_on(CPU, cpu.Runtime(2, request.param))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_lower_levels_conform(backend, case):
    case.check(backend)


def test_the_level_is_limited_and_reported(monkeypatch):
    monkeypatch.setenv("APHRODITE_CPU_ISA", "generic")
    made = cpu.create(CPU, threads=3, dtype=None)
    assert made.summary == "cpu: compiled kernels on generic, 3 threads"
    monkeypatch.setenv("APHRODITE_CPU_ISA", "mmx")
    with pytest.raises(BackendError, match=r"mmx is no instruction set .* generic, avx2"):
        cpu.create(CPU, threads=1, dtype=None)


def test_other_dtypes_are_refused():
    with pytest.raises(BackendError, match=r"float32, not torch.bfloat16"):
        cpu.create(CPU, threads=1, dtype=torch.bfloat16)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_numbers_convert_exactly(level, dtype):
    """Every 16-bit pattern widens, and hard cases round, as torch has it."""
    runtime = cpu.Runtime(1, level)
    made = cpu.backend_on(CPU, runtime)
    patterns = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(dtype)
    table = Dense(patterns.view(1 << 10, 64))
    widened = made.embed[Dense](torch.arange(1 << 10, dtype=torch.int32), table, 1.0)
    expected = patterns.float().view(1 << 10, 64)
    assert torch.equal(widened.nan_to_num(7.5), expected.nan_to_num(7.5))

    finite = expected.flatten()[expected.flatten().isfinite()]
    between = (finite + finite.roll(-1)) / 2
    hard = torch.cat((finite, between, between * (1 + 2**-20), torch.randn(5000) * 1e-6))
    hard = torch.cat(
        (hard, torch.tensor([torch.inf, -torch.inf, torch.nan, 65519.9, 65520.0, 1e38]))
    )
    hard = hard[: len(hard) // 64 * 64].view(-1, 1, 64).contiguous()
    shape = (len(hard), 1, 1, 64)
    cache = KVCache(torch.zeros(shape, dtype=dtype), torch.zeros(shape, dtype=dtype))
    q, k = torch.zeros_like(hard), torch.zeros_like(hard)
    positions, angles = torch.zeros(len(hard), dtype=torch.int32), torch.zeros(1, 2, 32)
    made.rotate_and_store(q, k, hard, positions, angles, cache, torch.arange(len(hard)))
    stored = cache.value.view(-1).float().nan_to_num(7.5)
    assert torch.equal(stored, hard.view(-1).to(dtype).float().nan_to_num(7.5))
