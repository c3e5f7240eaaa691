"""Every weight decoded, and the backend's product with it beside the reference's."""

from collections.abc import Callable

import torch
from aphrodite_kernels.backend import Backend
from aphrodite_kernels.backends import reference
from aphrodite_kernels.errors import KernelError
from aphrodite_kernels.layouts import PackedWeight
from aphrodite_quant import QuantError, Reader, TensorStore
from torch import Tensor

from aphrodite_engine.inspecting.modules import StoredModule
from aphrodite_engine.inspecting.report import ModuleCheck

Progress = Callable[[int, int], None]
"""Called with the modules that are checked and all of them."""

_ROWS = 4
_ALLOWED = 0.05
"""Root mean square of a difference: kernels round activations to 8 bits, of floats by 0.036."""
_ALLOWED_ONCE = 0.25
"""Of one element: six standard deviations of that."""


def check_module(
    module: StoredModule, store: TensorStore, reader: Reader, backend: Backend
) -> ModuleCheck:
    """Read, decode and multiply one module; what goes wrong is its problem."""
    try:
        if module.plain:
            return _plain(module, store)
        return _product(module.name, reader(store, module.name), backend)
    except (QuantError, KernelError) as error:
        return ModuleCheck(module=module.name, error=0.0, problem=str(error))


def _plain(module: StoredModule, store: TensorStore) -> ModuleCheck:
    wrong = [info.name for info in module.tensors if not store.read(info.name).isfinite().all()]
    problem = f"{wrong[0]} holds a NaN or an infinity" if wrong else None
    return ModuleCheck(module=module.name, error=0.0, problem=problem)


@torch.inference_mode()
def _product(name: str, weight: PackedWeight, backend: Backend) -> ModuleCheck:
    """Random rows times the weight: all of it, as a model would have it on the device."""
    dense = weight.dequantize()
    if not dense.isfinite().all():
        problem = f"{_places(~dense.isfinite())} of its weights are a NaN or an infinity"
        return ModuleCheck(module=name, error=0.0, problem=problem)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(_ROWS, weight.in_features, generator=generator)
    x = x.to(backend.device, backend.dtype)
    plain = reference.create(backend.device, threads=None, dtype=backend.dtype)
    expected = plain.any_matmul(x, weight.to(backend.device), None).float()
    prepared = backend.prepare(weight)
    found = backend.matmul_for(prepared)(x, prepared, None).float()
    rows = dense.to(backend.device).square().sum(1).sqrt()  # [N]
    typical = x.float().square().mean(1).sqrt()[:, None] * rows
    return _judged(name, found - expected, typical)


def _judged(name: str, difference: Tensor, typical: Tensor) -> ModuleCheck:
    """Differences [T, N] beside what a product is typically."""
    size = float(typical.square().mean().sqrt()) or 1.0
    error = float(difference.square().mean().sqrt()) / size
    once = difference.abs() > _ALLOWED_ONCE * typical + 1e-6
    problem = None
    if not error <= _ALLOWED:  # of a NaN, too
        problem = f"the product differs from the reference's by {error:.3g} of what is typical"
    elif once.any():
        problem = f"{_places(once)} outputs of the product differ from the reference's"
    return ModuleCheck(module=name, error=error, problem=problem)


def _places(wrong: Tensor) -> str:
    return f"{int(wrong.sum())} of {wrong.numel()}"
