"""Which device a model runs on."""

import torch

from aphrodite_engine.errors import ConfigError


def choose_device(name: str) -> torch.device:
    """The device of a configuration: `auto` is the GPU if there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return torch.device(name)
    kind, _, index = name.partition(":")
    if kind != "cuda" or not (index.isdigit() or name == kind):
        raise ConfigError(f"device is {name!r}, which is not one of auto, cpu, cuda, cuda:N")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(index or 0) >= count:
        raise ConfigError(f"device {name} does not exist: PyTorch sees {count} CUDA devices")
    return torch.device(kind, int(index or 0))
