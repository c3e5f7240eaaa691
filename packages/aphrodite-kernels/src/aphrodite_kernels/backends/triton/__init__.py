"""Triton kernels for CUDA devices: one kernel and its launcher per file.

An op that has no kernel here is the reference, which runs on the device as well. Without a device
the kernels run in Triton's interpreter (TRITON_INTERPRET=1 before the first import), for tests.
"""

from dataclasses import replace

import torch

from aphrodite_kernels.backend import Backend
from aphrodite_kernels.backends import reference
from aphrodite_kernels.backends.triton.device import describe, device_obstacle, overlaps
from aphrodite_kernels.backends.triton.graph import capture_on
from aphrodite_kernels.layouts import Dense, GgmlBlocks

DEVICE = "cuda"


def obstacle() -> str | None:
    """Why no kernel can run on this machine; None if they can."""
    return device_obstacle()


def create(device: torch.device, *, threads: int | None, dtype: torch.dtype | None) -> Backend:
    """The kernels on `device`; dtype None: bfloat16."""
    from aphrodite_kernels.backends.triton.activation import gated_on
    from aphrodite_kernels.backends.triton.dense import dense_matmul, dense_repack
    from aphrodite_kernels.backends.triton.dense_tiles import workspace_on
    from aphrodite_kernels.backends.triton.gather import embed_dense_on, select_on
    from aphrodite_kernels.backends.triton.ggml import (
        Fragments,
        PartWorkspace,
        embed_fragments_on,
        ggml_matmul,
        pack_fragments,
    )
    from aphrodite_kernels.backends.triton.norm import add_rms_norm_on, rms_norm_on
    from aphrodite_kernels.backends.triton.rope import rotate_on
    from aphrodite_kernels.backends.triton.store_kv import store_kv_on

    dtype = dtype or torch.bfloat16
    workspace = workspace_on(device)
    overlapped = overlaps(device)
    return replace(
        reference.create(device, threads=threads, dtype=dtype),
        name="triton",
        summary=f"triton: kernels for {describe(device)}, {dtype}",
        capture=capture_on(device) if device.type == "cuda" else None,
        elastic=False,
        pack={Dense: dense_repack(dtype), GgmlBlocks: pack_fragments},
        matmul={
            Dense: dense_matmul(workspace),
            Fragments: ggml_matmul(PartWorkspace(device), overlapped=overlapped),
        },
        embed={
            Dense: embed_dense_on(dtype, overlapped=overlapped),
            Fragments: embed_fragments_on(dtype, overlapped=overlapped),
        },
        rms_norm=rms_norm_on(overlapped=overlapped),
        add_rms_norm=add_rms_norm_on(overlapped=overlapped),
        rotate=rotate_on(overlapped=overlapped),
        store_kv=store_kv_on(overlapped=overlapped),
        gated=gated_on(overlapped=overlapped),
        select=select_on(overlapped=overlapped),
    )
