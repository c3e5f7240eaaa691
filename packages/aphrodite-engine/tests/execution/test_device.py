"""What is said when the GPU that somebody wants cannot be used."""

import pytest
import torch
from aphrodite_engine.errors import ConfigError
from aphrodite_engine.execution import device as devices
from aphrodite_engine.execution.device import choose_device
from aphrodite_engine.loading.errors import loading_error


@pytest.fixture
def no_gpu(monkeypatch):
    """Function that leaves PyTorch without CUDA, for the reason it gives."""

    def because(reason, visible=None):
        def init():
            raise RuntimeError(reason)

        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
        monkeypatch.setattr(torch.cuda, "init", init)
        monkeypatch.setattr(devices, "visible_devices", lambda: visible)

    return because


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(devices, "visible_devices", lambda: None)
    monkeypatch.setattr(devices, "obstacle_on", lambda device: None)


REASONS = {
    "Found no NVIDIA driver on your system. Please check that": "there is no NVIDIA driver; inst",
    "The NVIDIA driver on your system is too old (found version 11040). Please": (
        "the NVIDIA driver is too old for this PyTorch"
    ),
    "No CUDA GPUs are available": "driver shows no GPU (CUDA_VISIBLE_DEVICES is 7); look",
    "Unexpected error from cudaGetDeviceCount(). Error 804\nand a trace": (
        "cannot start CUDA: Unexpected error from cudaGetDeviceCount(). Error 804"
    ),
}


@pytest.mark.parametrize("reason", REASONS)
def test_no_cuda(no_gpu, reason):
    no_gpu(reason, visible="7")
    with pytest.raises(ConfigError) as caught:
        choose_device("cuda")
    message = str(caught.value)
    assert message.startswith("device cuda cannot be used: ") and REASONS[reason] in message
    assert "\n" not in message
    assert choose_device("auto").type == "cpu"


@pytest.mark.parametrize("visible", ["", "-1"])
def test_hidden_gpus(no_gpu, visible):
    no_gpu("No CUDA GPUs are available", visible)
    with pytest.raises(ConfigError, match="CUDA_VISIBLE_DEVICES hides every GPU; unset it"):
        choose_device("cuda:0")


def test_a_pytorch_without_cuda(no_gpu, monkeypatch):
    no_gpu("")
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: False)
    with pytest.raises(ConfigError, match="built without CUDA; install one that has it"):
        choose_device("cuda")


def test_gpus_by_number(two_gpus):
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda:0")
    assert choose_device("cuda:1").index == 1
    with pytest.raises(ConfigError, match=r"sees 2 CUDA devices, cuda:0 to cuda:1$"):
        choose_device("cuda:2")


def test_an_old_gpu_is_left_alone_and_this_is_said(two_gpus, monkeypatch, caplog):
    monkeypatch.setattr(devices, "obstacle_on", lambda device: "it has compute capability 7.0")
    assert choose_device("auto").type == "cpu"
    assert "the model runs on the CPU: it has compute capability 7.0" in caplog.text


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:", "cpu:0"])
def test_no_device(name):
    with pytest.raises(ConfigError, match="not one of auto, cpu, cuda, cuda:N"):
        choose_device(name)


def test_a_model_that_does_not_fit():
    error = torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB of "
        "which 1.00 GiB is free. If reserved memory is large try setting max_split_size_mb"
    )
    known = loading_error(error)
    assert isinstance(known, ConfigError)
    assert "Tried to allocate 2.00 GiB. GPU 0 has a total" in str(known)
    assert "of which 1.00 GiB is free; lower" in str(known)
