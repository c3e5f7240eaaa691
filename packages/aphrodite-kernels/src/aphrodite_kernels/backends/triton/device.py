"""What the kernels run on: a CUDA device, or Triton's interpreter."""

import importlib.util

import torch

_OLDEST = (8, 0)
"""Compute capability: the first with bfloat16 products."""
_FLOAT8 = (8, 9)
"""The first with float8_e4m3fn."""


def interpreted() -> bool:
    """Kernels run in Triton's interpreter, on tensors of the CPU."""
    from triton import knobs

    return bool(knobs.runtime.interpret)


def device_obstacle() -> str | None:
    """Why no kernel can run on this machine; None if they can."""
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed; pip install triton"
    if interpreted():
        return None
    if not torch.cuda.is_available():
        return (
            "PyTorch sees no CUDA device; is there a driver, and one new enough for this PyTorch?"
        )
    found = torch.cuda.get_device_capability()
    if found < _OLDEST:
        return (
            f"{torch.cuda.get_device_name()} has compute capability {found[0]}.{found[1]}; "
            f"the kernels need {_OLDEST[0]}.{_OLDEST[1]} (Ampere) or newer"
        )
    return None


def overlaps(device: torch.device) -> bool:
    """Kernels can start while the one before still runs (programmatic dependent launch)."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)


def reads_float8(device: torch.device) -> bool:
    """Kernels know float8_e4m3fn there."""
    return device.type != "cuda" or torch.cuda.get_device_capability(device) >= _FLOAT8


def describe(device: torch.device) -> str:
    """The device, for people."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "Triton's interpreter"
