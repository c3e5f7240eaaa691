"""Weights from a mapped file to one GPU: what the bus does, and what uploading reaches of it.

    P=packages; PYTHONPATH=$P/aphrodite-kernels/src:$P/aphrodite-quant/src:$P/aphrodite-engine/src \
        python3 benchmarks/gpu/loading.py

A file of random bytes stands for a checkpoint; it is read from the page cache ("warm"), and from
the disk after its pages were given back ("cold"), with and without having been asked for before.
The goal is 80 % of the slower of disk and bus.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import torch
from aphrodite_engine.loading.read_ahead import read_ahead
from aphrodite_engine.loading.upload import Uploader
from aphrodite_kernels.backends.cpu.cores import physical_cores
from torch import Tensor

DEVICE = torch.device("cuda")
TENSOR = 14336 * 4096 * 2
"""Bytes of each: a projection of an 8B model in bfloat16."""
MIB = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--gib", type=float, default=6, help="size of the file")
    parser.add_argument("--folder", default=None, help="on the disk to measure")
    arguments = parser.parse_args()
    with tempfile.NamedTemporaryFile(dir=arguments.folder) as file:
        path, count = Path(file.name), int(arguments.gib * 2**30) // TENSOR
        written = timed(lambda: write(path, count))
        size = count * TENSOR
        print(f"file of {size / 1e9:.1f} GB, written at {size / written / 1e9:.1f} GB/s")
        print(f"{physical_cores()} cores; {torch.cuda.get_device_name()}")
        bus = the_bus()
        print(f"pinned memory to device: {bus:.1f} GB/s")
        check(tensors(path)[0])
        warm(path, size, bus)
        cold(path, size)


def write(path: Path, count: int) -> None:
    piece = os.urandom(TENSOR)
    with path.open("wb") as file:
        for _ in range(count):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def tensors(path: Path) -> list[Tensor]:
    """The file, mapped anew."""
    data = torch.from_file(str(path), size=path.stat().st_size, dtype=torch.uint8)
    return list(data.split(TENSOR))


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def the_bus() -> float:
    """GB/s of copies that do nothing else."""
    pinned = torch.empty(256 * MIB, dtype=torch.uint8, pin_memory=True)
    target = torch.empty_like(pinned, device=DEVICE)

    def copy() -> None:
        for _ in range(10):
            target.copy_(pinned, non_blocking=True)
        torch.cuda.synchronize()

    copy()
    return 10 * pinned.nbytes / timed(copy) / 1e9


def check(tensor: Tensor) -> None:
    with Uploader(DEVICE, physical_cores()) as upload:
        arrived = [upload(tensor), upload(tensor[:1000]), upload(tensor)]
    good = all(torch.equal(each.cpu(), tensor[: len(each)]) for each in arrived)
    print(f"what arrives is what was sent: {'PASS' if good else 'FAIL'}")


def load(path: Path, threads: int, buffer: int) -> float:
    """Seconds to upload the file, its buffers and threads included."""

    def work() -> None:
        with Uploader(DEVICE, threads, buffer) as upload:
            for tensor in tensors(path):
                upload(tensor)

    return timed(work)


def warm(path: Path, size: int, bus: float) -> None:
    plain = timed(lambda: [tensor.to(DEVICE) for tensor in tensors(path)])
    print(f"warm, tensor.to(device): {size / plain / 1e9:.1f} GB/s")
    print("warm, uploaded: threads, MiB of a buffer, GB/s, of the bus")
    before = own_memory()
    for threads, buffer in product((1, 2, 4, 8, 16), (16, 64, 128)):
        try:
            rate = size / load(path, threads, buffer * MIB) / 1e9
        except Exception as error:
            print(f"{threads:3} {buffer:4}  {str(error).splitlines()[0]}")
        else:
            print(f"{threads:3} {buffer:4} {rate:7.1f} {rate / bus:6.0%}")
    print(f"memory of the process beside the page cache: {(own_memory() - before) / MIB:.0f} MiB")


def cold(path: Path, size: int) -> None:
    threads, buffer = physical_cores(), 64 * MIB
    forget(path)
    print(f"cold, uploaded: {size / load(path, threads, buffer) / 1e9:.1f} GB/s")
    forget(path)
    print(f"cold, read by one thread: {size / timed(lambda: read(path)) / 1e9:.1f} GB/s")
    forget(path)
    thread = read_ahead([path])
    time.sleep(2)  # what a process takes to import its libraries
    rate = size / load(path, threads, buffer) / 1e9
    print(f"cold, asked for 2 s before, uploaded: {rate:.1f} GB/s")
    if thread is not None:
        thread.join()


def forget(path: Path) -> None:
    """Give the file's pages back."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read(path: Path) -> None:
    piece = bytearray(8 * MIB)
    with path.open("rb", buffering=0) as file:
        while file.readinto(piece):
            pass


def own_memory() -> int:
    """Bytes of this process that are no file's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


if __name__ == "__main__":
    main()
