"""Threads of the CPU backend, its library, and what its shims refuse."""

import gc
import re
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aphrodite_kernels
import pytest
import torch
from aphrodite_kernels import (
    BackendError,
    Dense,
    KernelError,
    KVCache,
    ShapeError,
    backend_for,
)
from aphrodite_kernels.backends import cpu
from aphrodite_kernels.backends.cpu import library
from aphrodite_kernels.backends.cpu.cores import physical_cores

if cpu.obstacle() is not None:
    pytest.skip(f"the CPU backend cannot run: {cpu.obstacle()}", allow_module_level=True)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def backend():
    return cpu.backend_on(CPU, cpu.Runtime(2))


@pytest.mark.parametrize("threads", [2, 7])
def test_callers_from_many_threads_share_a_pool(threads):
    """Six Python threads, loops of every length, more workers than cores."""
    made = cpu.backend_on(CPU, cpu.Runtime(threads))

    def work(seed):
        generator = torch.Generator().manual_seed(seed)
        for _ in range(60):
            rows = int(torch.randint(1, 400, (1,), generator=generator))
            x = torch.randn(rows, 256, generator=generator)
            index = torch.randint(rows, (rows,), generator=generator)
            assert torch.equal(made.select(x, index), x[index])

    with ThreadPoolExecutor(6) as executor:
        for done in [executor.submit(work, seed) for seed in range(6)]:
            done.result(timeout=60)


def test_runtimes_come_and_go():
    """Threads end with their runtime, parked or spinning."""
    x, index = torch.randn(500, 256), torch.arange(500)
    before = len(list(Path("/proc/self/task").iterdir())) if Path("/proc").exists() else 0
    for _ in range(30):
        made = cpu.backend_on(CPU, cpu.Runtime(4))
        assert torch.equal(made.select(x, index), x)
        del made
    gc.collect()
    if before:
        assert len(list(Path("/proc/self/task").iterdir())) <= before + 4


def test_errors_belong_to_their_thread(backend):
    """The message of one thread's failure is not another's."""
    messages = {}
    barrier = threading.Barrier(4)

    def fail(row):
        barrier.wait()
        for _ in range(200):
            with pytest.raises(KernelError) as caught:
                backend.select(torch.zeros(4, 8), torch.tensor([row]))
            messages.setdefault(row, set()).add(str(caught.value))

    workers = [threading.Thread(target=fail, args=(row,)) for row in range(10, 14)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert messages == {row: {f"select: row {row} of 4 does not exist"} for row in range(10, 14)}


def test_threads_default_to_physical_cores(monkeypatch):
    monkeypatch.delenv("APHRODITE_BACKEND", raising=False)
    monkeypatch.delenv("APHRODITE_CPU_ISA", raising=False)
    assert backend_for(CPU).summary.endswith(f", {physical_cores()} threads")
    with pytest.raises(BackendError, match="1 to 1024 threads"):
        cpu.Runtime(0)


def test_a_missing_library_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(aphrodite_kernels, "__path__", [str(tmp_path)])
    assert "is missing from the package; install a C++20 compiler" in cpu.obstacle()
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libaphrodite_cpu.so").write_bytes(b"not a library")
    assert "does not load" in cpu.obstacle()


def test_a_library_of_another_version_says_so():
    with pytest.raises(BackendError, match="no op frobnicate: it is older"):
        cpu.Runtime(1).op("frobnicate")


@pytest.mark.parametrize(
    ("file", "struct"),
    [
        ("ops/floats/argmax.cpp", "aph_argmax_args {"),
        ("ops/dense_matmul.cpp", "aph_dense_matmul_args : aph_product {"),
        ("product.h", "aph_product {"),
    ],
)
def test_a_library_of_other_sources_says_so(monkeypatch, tmp_path, file, struct):
    """Its number is that of the sources; one more argument of an op makes another."""
    number = library.interface_of(library._SOURCES)
    assert library.open_library().aph_interface() == number
    shutil.copytree(library._SOURCES, tmp_path, dirs_exist_ok=True)
    assert library.interface_of(tmp_path) == number
    source = tmp_path / file
    source.write_text(source.read_text().replace(struct, f"{struct}\n  int64_t more;"))
    monkeypatch.setattr(library, "_SOURCES", tmp_path)
    found = (
        rf"has interface {number:08x}, but its sources have {library.interface_of(tmp_path):08x}"
    )
    assert re.search(rf"{found}: .*reinstall aphrodite-kernels", cpu.obstacle())
    monkeypatch.setattr(library, "_SOURCES", tmp_path / "none")
    assert cpu.obstacle() is None


def test_no_rows_are_no_work(backend):
    weight = torch.ones(8)
    assert backend.rms_norm(torch.zeros(0, 8), weight, 1e-6).shape == (0, 8)
    assert backend.select(torch.zeros(3, 8), torch.zeros(0, dtype=torch.int64)).shape == (0, 8)
    assert backend.gated(torch.zeros(0, 8), torch.zeros(0, 8), "silu").shape == (0, 8)


def test_bad_indices_are_errors(backend):
    embed, table = backend.embed[Dense], Dense(torch.zeros(5, 8))
    with pytest.raises(KernelError, match="embed: token 5 is not in the vocabulary of 5"):
        embed(torch.tensor([0, 5], dtype=torch.int32), table, 1.0)
    q, k, angles = torch.zeros(2, 1, 8), torch.zeros(2, 1, 8), torch.zeros(10, 2, 4)
    cache = KVCache(torch.zeros(3, 4, 1, 8), torch.zeros(3, 4, 1, 8))
    positions, slots = torch.tensor([0, 10], dtype=torch.int32), torch.tensor([12, 0])
    with pytest.raises(KernelError, match="row 1 is at position 10, but the table has 10"):
        backend.rotate_and_store(q, k, k, positions, angles, cache, slots)
    with pytest.raises(KernelError, match="row 0 goes to slot 12, but the cache has 12 slots"):
        backend.rotate_and_store(q, k, k, positions * 0, angles, cache, slots)


def test_tensors_that_do_not_fit_are_errors(backend):
    x, weight = torch.zeros(4, 8), torch.ones(8)
    with pytest.raises(ShapeError, match=r"weight must be \[8\] torch.float32 .* not \[4\]"):
        backend.rms_norm(x, weight[:4], 1e-6)
    with pytest.raises(ShapeError, match="last dimension of x must be contiguous"):
        backend.rms_norm(torch.zeros(8, 4).T, weight, 1e-6)
    with pytest.raises(ShapeError, match=r"residual must be \[4, 8\]"):
        backend.add_rms_norm(x, x[:2], weight, 1e-6)
    with pytest.raises(ShapeError, match=r"index must be .* torch.int64 on the CPU, not .*int32"):
        backend.select(x, torch.zeros(2, dtype=torch.int32))
    with pytest.raises(ShapeError, match="a table for 16 dimensions does not fit heads of 8"):
        heads, positions = x[:, None], torch.zeros(4, dtype=torch.int32)
        cache = KVCache(torch.zeros(1, 4, 1, 8), torch.zeros(1, 4, 1, 8))
        wide = torch.zeros(9, 2, 8)
        backend.rotate_and_store(heads, heads, heads, positions, wide, cache, torch.arange(4))
    with pytest.raises(ShapeError, match="positions must be contiguous"):
        backend.uniform(
            torch.zeros(2, dtype=torch.int64),
            torch.zeros(2, dtype=torch.int32),
            torch.zeros(2, 2, dtype=torch.int32)[:, 0],
            0,
        )
