"""A backend is a record of ops; `backend_for(device)` is the only place that looks at devices.

Made from the reference by `dataclasses.replace`: an op that is not overridden is the reference.
A backend is a folder under `backends/`; `backend_for` says what its module has.
"""

import importlib
import logging
import os
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from aphrodite_kernels.errors import BackendError
from aphrodite_kernels.layouts.base import PackedWeight
from aphrodite_kernels.protocols import (
    AddRMSNorm,
    Attention,
    Capture,
    Embed,
    Embeds,
    FindPaths,
    Gated,
    Inputs,
    InputsFor,
    Locate,
    MatMul,
    MatMuls,
    Repacks,
    RMSNorm,
    RotateAndStore,
    RoundedMatMul,
    Select,
    Takes,
)
from aphrodite_kernels.sampling_protocols import (
    Argmax,
    Bend,
    Deviation,
    Divide,
    Draw,
    Keep,
    KeepNear,
    KeepTailFree,
    KeepTopK,
    KeepTopP,
    KeepTypical,
    KeepUpTo,
    LeastFrom,
    LogSumExp,
    Prefer,
    Skew,
    Uncertainty,
    Uniform,
)

_FOLDER = "aphrodite_kernels.backends"  # by name only: every backend there imports this module
_FALLBACK = "reference"
_OVERRIDE = "APHRODITE_BACKEND"
_INSTRUCTION_SET = "APHRODITE_CPU_ISA"
_VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """The ops of one device; see protocols.py for their signatures."""

    name: str
    device: torch.device
    dtype: torch.dtype
    """Dtype of activations."""
    summary: str
    """One line for people: what runs, on which instruction set, with how many threads."""
    row_invariant: bool
    """A row's results depend on that row alone, bit for bit, in every op but `any_matmul`."""
    kv_dtypes: tuple[torch.dtype, ...]
    """Dtypes of the KV cache that `rotate_and_store` and `attention` know."""
    any_matmul: MatMul
    """For weights that `matmul` does not take."""
    any_embed: Embed
    matmul: MatMuls
    rounded_matmul: RoundedMatMul
    embed: Embeds
    pack: Repacks
    rms_norm: RMSNorm
    add_rms_norm: AddRMSNorm
    rotate_and_store: RotateAndStore
    attention: Attention
    gated: Gated
    select: Select
    locate: Locate
    uniform: Uniform
    argmax: Argmax
    draw: Draw
    logsumexp: LogSumExp
    uncertainty: Uncertainty
    deviation: Deviation
    divide: Divide
    bend: Bend
    prefer: Prefer
    keep: Keep
    keep_near: KeepNear
    keep_up_to: KeepUpTo
    least_from: LeastFrom
    keep_top_k: KeepTopK
    keep_top_p: KeepTopP
    keep_tail_free: KeepTailFree
    keep_typical: KeepTypical
    skew: Skew
    find_paths: FindPaths
    takes: Mapping[type[PackedWeight], Takes] = field(
        default_factory=dict[type[PackedWeight], Takes]
    )
    """Layouts of which `matmul` multiplies some weights only."""
    inputs: Mapping[type[PackedWeight], InputsFor] = field(
        default_factory=dict[type[PackedWeight], InputsFor]
    )
    """Layouts whose products may get their inputs rounded."""
    capture: Capture | None = None
    """None: this backend cannot record, run the function itself each time."""
    elastic: bool = True
    """A captured program replays over fewer rows than it was recorded with."""
    steady: "Callable[[], Backend] | None" = None
    """This backend with row-invariant kernels in the place of faster ones; None: it has no others.
    """

    def prepare(self, weight: PackedWeight) -> PackedWeight:
        """The weight on this device, re-tiled if this backend has a tiling for its layout."""
        weight = weight.to(self.device)
        repack = self.pack.get(type(weight))
        return repack(weight) if repack else weight

    def deterministic(self) -> "Backend":
        """This backend, refusing products that round a row by the company it is in.

        Raises:
            BackendError: its other ops do so, too.
        """
        backend = self.steady() if self.steady else self
        if not backend.row_invariant:
            raise BackendError(
                f"the backend {self.name!r} cannot be deterministic: what it computes for a row "
                "depends on the other rows of the step; leave the option out"
            )

        def refuse(x: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
            raise BackendError(
                f"the backend {self.name!r} has no deterministic product for the layout "
                f"{type(weight).__name__}; leave the option out"
            )

        return replace(backend, any_matmul=refuse)

    def multiplies(self, weight: PackedWeight) -> bool:
        """Whether there is a product for this weight that does not dequantise it first."""
        takes = self.takes.get(type(weight))
        return type(weight) in self.matmul and (takes is None or takes(weight))

    def matmul_for(self, weight: PackedWeight) -> MatMul:
        """The product to bind for this weight."""
        return self.matmul[type(weight)] if self.multiplies(weight) else self.any_matmul

    def inputs_of(self, weight: PackedWeight) -> Inputs:
        """The ops to bind for what this weight multiplies, alone."""
        choose = self.inputs.get(type(weight)) if self.multiplies(weight) else None
        return choose(weight) if choose else Inputs(self.add_rms_norm, self.gated)

    def embed_for(self, weight: PackedWeight) -> Embed:
        """The look-up to bind for this weight."""
        return self.embed.get(type(weight), self.any_embed)


def backend_names() -> list[str]:
    """Every backend that is present."""
    folder = importlib.import_module(_FOLDER)
    return sorted(module.name for module in pkgutil.iter_modules(folder.__path__))


def instruction_set_limit() -> str | None:
    """The highest instruction set that compiled kernels may use, if APHRODITE_CPU_ISA names one."""
    return os.environ.get(_INSTRUCTION_SET)


def visible_devices() -> str | None:
    """The CUDA devices that the environment shows to this process; None: all of them."""
    return os.environ.get(_VISIBLE_DEVICES)


def obstacle_on(device: torch.device) -> str | None:
    """Why the backend made for such devices cannot run on this machine; None if it can."""
    modules = (importlib.import_module(f"{_FOLDER}.{name}") for name in backend_names())
    obstacles = [module.obstacle() for module in modules if device.type == module.DEVICE]
    return None if None in obstacles else next(iter(obstacles), None)


def backend_for(
    device: torch.device, *, threads: int | None = None, dtype: torch.dtype | None = None
) -> Backend:
    """The best backend for a device, or the one that APHRODITE_BACKEND names.

    A backend's package says for which `device.type` it is made (`DEVICE`; the reference: any), why
    it cannot run on this machine (`obstacle()`, None if it can) and makes itself (`create`).

    Args:
        device: where tensors live.
        threads: CPU threads of the backend; None: physical cores.
        dtype: of activations; None: the backend's own choice.

    Raises:
        BackendError: the override names no backend, or that backend cannot run here; or none can
            but the reference, and the device is a GPU.
    """
    override = os.environ.get(_OVERRIDE)
    if override is not None and override not in backend_names():
        raise BackendError(
            f"{_OVERRIDE}={override} names no backend; present are {', '.join(backend_names())}"
        )
    others = [name for name in backend_names() if name != _FALLBACK]
    for name in [override] if override else [*others, _FALLBACK]:
        module = importlib.import_module(f"{_FOLDER}.{name}")
        if name not in (override, _FALLBACK) and device.type != module.DEVICE:
            continue
        obstacle = module.obstacle()
        if obstacle is None:
            backend: Backend = module.create(device, threads=threads, dtype=dtype)
            return backend
        if override:
            raise BackendError(f"backend {name} cannot run here: {obstacle}")
        if device.type == "cuda":
            raise BackendError(
                f"device {device} cannot be used: {obstacle}; choose device cpu, or set "
                f"{_OVERRIDE}={_FALLBACK} for plain torch, which is very slow"
            )
        _log.warning("backend %s cannot run here, the slow reference is used: %s", name, obstacle)
    raise BackendError("no backend can run here")  # the reference has no obstacle
