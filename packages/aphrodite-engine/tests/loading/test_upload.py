"""Tensors through pinned buffers; without a CUDA device the buffers are plain memory."""

import pytest
import torch
from aphrodite_engine.loading.upload import DeviceStore, Uploader, read_to

CPU = torch.device("cpu")


class Store:
    """One tensor of ones."""

    def names(self):
        return ["a"]

    def info(self, name):
        return f"info of {name}"

    def read(self, name):
        return torch.ones(2)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 1000, 4096, 5000, 100_000])
def test_tensors_arrive_whole(size: int) -> None:
    tensors = [
        torch.arange(size, dtype=torch.uint8),
        torch.arange(size, dtype=torch.float32),
        torch.arange(size, dtype=torch.float32).to(torch.float8_e4m3fn),
    ]
    with Uploader(CPU, threads=2, buffer_bytes=4096) as upload:
        arrived = [upload(tensor) for tensor in tensors]
    for tensor, copy in zip(tensors, arrived, strict=True):
        assert copy.dtype == tensor.dtype and copy.shape == tensor.shape
        assert torch.equal(copy.view(torch.uint8), tensor.view(torch.uint8))
        assert not size or copy.data_ptr() != tensor.data_ptr()


def test_large_tensors_are_copied_by_several_threads() -> None:
    tensor = torch.randint(0, 256, (3, 11 << 20), dtype=torch.uint8)
    with Uploader(CPU, threads=3) as upload:
        assert torch.equal(upload(tensor), tensor)
        assert torch.equal(upload(tensor.T), tensor.T)


def test_scalars_and_bools() -> None:
    with Uploader(CPU, threads=1) as upload:
        assert upload(torch.tensor(3.5)) == 3.5
        assert upload(torch.tensor([True, False])).tolist() == [True, False]


def test_what_is_on_a_device_stays_there() -> None:
    elsewhere = torch.empty(3, device="meta")
    with Uploader(CPU, threads=1) as upload:
        assert upload(elsewhere) is elsewhere


def test_a_store_on_a_device_reads_through_the_uploader() -> None:
    store = DeviceStore(Store(), lambda tensor: tensor + 1)
    assert list(store.names()) == ["a"] and store.info("a") == "info of a"
    assert store.read("a").tolist() == [2, 2]


def test_on_a_cpu_the_file_stays_mapped() -> None:
    with read_to(CPU, store := Store()) as read:
        assert read is store
