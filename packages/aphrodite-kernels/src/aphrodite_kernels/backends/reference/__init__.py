"""Every op in plain torch, on any device: the specification that other backends are tested against.

One file per group of ops, written to be read beside protocols.py. Everything is computed in float32
and rounded once. Nothing here is fast.
"""

import torch

from aphrodite_kernels.backend import Backend
from aphrodite_kernels.backends.reference.activation import gated
from aphrodite_kernels.backends.reference.attention import attention
from aphrodite_kernels.backends.reference.locate import locate
from aphrodite_kernels.backends.reference.matmul import embed_as, matmul, rounded_matmul, select
from aphrodite_kernels.backends.reference.norm import add_rms_norm, rms_norm
from aphrodite_kernels.backends.reference.rope import rotate_and_store
from aphrodite_kernels.backends.reference.sampling import (
    argmax,
    bend,
    deviation,
    divide,
    draw,
    keep,
    keep_near,
    keep_tail_free,
    keep_top_k,
    keep_top_p,
    keep_typical,
    keep_up_to,
    least_from,
    logsumexp,
    prefer,
    skew,
    uncertainty,
    uniform,
)
from aphrodite_kernels.backends.reference.trellis import find_paths

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
QUANTIZED = (torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.uint8)
"""Kinds of KV cache with scales; uint8: two numbers of 4 bits."""

DEVICE = None
"""Made for no device in particular: it runs on all of them."""


def obstacle() -> str | None:
    """Nothing keeps it from running."""
    return None


def create(device: torch.device, *, threads: int | None, dtype: torch.dtype | None) -> Backend:
    """The reference on `device`; dtype None: float32 on the CPU, bfloat16 elsewhere."""
    if threads is not None:
        torch.set_num_threads(threads)
    if dtype is None:
        dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    return Backend(
        name="reference",
        device=device,
        dtype=dtype,
        summary=f"reference: slow plain torch on {device}, {dtype}, "
        f"{torch.get_num_threads()} threads",
        row_invariant=False,  # torch chooses a product's kernel by its shape
        kv_dtypes=(*FLOATS, *QUANTIZED),
        any_matmul=matmul,
        any_embed=embed_as(dtype),
        matmul={},
        rounded_matmul=rounded_matmul,
        embed={},
        pack={},
        rms_norm=rms_norm,
        add_rms_norm=add_rms_norm,
        rotate_and_store=rotate_and_store,
        attention=attention,
        gated=gated,
        select=select,
        locate=locate,
        uniform=uniform,
        argmax=argmax,
        draw=draw,
        logsumexp=logsumexp,
        uncertainty=uncertainty,
        deviation=deviation,
        keep=keep,
        keep_near=keep_near,
        keep_up_to=keep_up_to,
        least_from=least_from,
        keep_top_k=keep_top_k,
        keep_top_p=keep_top_p,
        keep_tail_free=keep_tail_free,
        keep_typical=keep_typical,
        divide=divide,
        bend=bend,
        prefer=prefer,
        skew=skew,
        find_paths=find_paths,
    )
