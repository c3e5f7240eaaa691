"""Which device a model runs on, and why it is not the one that was hoped for."""

import logging
import warnings

import torch
from aphrodite_kernels.backend import obstacle_on, visible_devices

from aphrodite_engine.errors import ConfigError

_log = logging.getLogger(__name__)


def choose_device(name: str) -> torch.device:
    """The device of a configuration: `auto` is the GPU if there is one that works, else the CPU.

    Raises:
        ConfigError: no such device, or it cannot be used.
    """
    if name == "auto":
        return _best()
    if name == "cpu":
        return torch.device(name)
    kind, _, index = name.partition(":")
    if kind != "cuda" or not (index.isdigit() or name == kind):
        raise ConfigError(f"device is {name!r}, which is not one of auto, cpu, cuda, cuda:N")
    if not _cuda_works():
        raise ConfigError(f"device {name} cannot be used: {why_no_cuda()}")
    count = torch.cuda.device_count()
    if int(index or 0) >= count:
        raise ConfigError(
            f"device {name} does not exist: PyTorch sees {count} CUDA devices, "
            f"cuda:0 to cuda:{count - 1}{_filtered()}"
        )
    return torch.device(kind, int(index or 0))


def _best() -> torch.device:
    if not _cuda_works():
        return torch.device("cpu")
    device = torch.device("cuda", 0)
    obstacle = obstacle_on(device)
    if obstacle is None:
        return device
    _log.warning("the GPU is not used, the model runs on the CPU: %s", obstacle)
    return torch.device("cpu")


def _cuda_works() -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is wrong is told in our own words
        return torch.cuda.is_available()


def why_no_cuda() -> str:
    """What keeps PyTorch from seeing a CUDA device, and the cure."""
    if not torch.backends.cuda.is_built():
        return "this PyTorch was built without CUDA; install one that has it, or choose device cpu"
    if visible_devices() in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides every GPU; unset it, or put the number of one there"
    try:
        torch.cuda.init()
    except RuntimeError as error:
        return _in_our_words(str(error))
    return "PyTorch sees none; choose device cpu"


def _in_our_words(reason: str) -> str:
    built = f"this PyTorch ({torch.__version__}, CUDA {torch.version.cuda})"
    if "too old" in reason:
        return (
            f"the NVIDIA driver is too old for {built}; update the driver, or install a PyTorch "
            "for an older CUDA"
        )
    if "no NVIDIA driver" in reason:
        return "there is no NVIDIA driver; install one, or choose device cpu"
    if "No CUDA GPUs" in reason:
        return f"the NVIDIA driver shows no GPU{_filtered()}; look at nvidia-smi"
    return f"{built} cannot start CUDA: {reason.splitlines()[0]}"


def _filtered() -> str:
    visible = visible_devices()
    return "" if visible is None else f" (CUDA_VISIBLE_DEVICES is {visible})"
