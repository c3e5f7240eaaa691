"""The compiled CPU library, through ctypes.

Activations are float32. One thin shim per op: it checks shapes and dtypes, fills the structure that
the C function takes, and calls it. What has no compiled kernel is the reference.
"""

from dataclasses import replace

import torch

from aphrodite_kernels.backend import Backend, instruction_set_limit
from aphrodite_kernels.backends import reference
from aphrodite_kernels.backends.cpu.activation import gated_on
from aphrodite_kernels.backends.cpu.attention import attention_on
from aphrodite_kernels.backends.cpu.bend import bend_on, prefer_on
from aphrodite_kernels.backends.cpu.codebook import Vectors, codebook_matmul_on
from aphrodite_kernels.backends.cpu.cores import physical_cores
from aphrodite_kernels.backends.cpu.fallback import any_embed_on, any_matmul_on, sourced_rows_on
from aphrodite_kernels.backends.cpu.gather import embed_dense_on, select_on
from aphrodite_kernels.backends.cpu.keep import (
    Rule,
    change_on,
    keep_on,
    keep_top_k_on,
    keep_top_p_on,
    least_from_on,
)
from aphrodite_kernels.backends.cpu.library import open_library
from aphrodite_kernels.backends.cpu.matmul import dense_matmul_on, tiled_matmul_on
from aphrodite_kernels.backends.cpu.narrow import Narrow, narrow_matmul_on, narrow_rows_on
from aphrodite_kernels.backends.cpu.norm import add_rms_norm_on, rms_norm_on
from aphrodite_kernels.backends.cpu.outlying import outlying_matmul_on, outlying_rows_on
from aphrodite_kernels.backends.cpu.program import capture_on
from aphrodite_kernels.backends.cpu.rope import rotate_and_store_on
from aphrodite_kernels.backends.cpu.rotated import rotated_matmul_on
from aphrodite_kernels.backends.cpu.row_grouped import RowScaled, row_grouped_matmul_on
from aphrodite_kernels.backends.cpu.runs import runs_matmul_on, runs_rows_on
from aphrodite_kernels.backends.cpu.runtime import Runtime
from aphrodite_kernels.backends.cpu.sampling import argmax_on, draw_on, uniform_on
from aphrodite_kernels.backends.cpu.spread import deviation_on, logsumexp_on, uncertainty_on
from aphrodite_kernels.backends.cpu.tile_pack import PACKED_LAYOUTS, pack_on
from aphrodite_kernels.backends.cpu.tiled import Tiled, tiled_rows_on
from aphrodite_kernels.backends.cpu.trellis import Unrolled, trellis_matmul_on
from aphrodite_kernels.backends.cpu.trellis_paths import find_paths_on
from aphrodite_kernels.composed import multiplies_within, packs_within
from aphrodite_kernels.errors import BackendError
from aphrodite_kernels.layouts.dense import Dense
from aphrodite_kernels.layouts.outlying import Outlying
from aphrodite_kernels.layouts.rotated import Rotated
from aphrodite_kernels.layouts.runs import Runs
from aphrodite_kernels.protocols import Embeds, MatMuls

DEVICE = "cpu"


def obstacle() -> str | None:
    """Why the library cannot be used; None if it can."""
    try:
        open_library()
    except BackendError as error:
        return str(error)
    return None


def create(device: torch.device, *, threads: int | None, dtype: torch.dtype | None) -> Backend:
    """The compiled backend; threads None: physical cores.

    It has threads of its own, and leaves PyTorch only one.
    """
    if dtype not in (None, torch.float32):
        raise BackendError(
            f"the compiled CPU backend computes activations in float32, not {dtype}; "
            "leave the dtype out, or use the reference backend"
        )
    torch.set_num_threads(1)
    return backend_on(device, Runtime(threads or physical_cores(), instruction_set_limit()))


def backend_on(device: torch.device, runtime: Runtime) -> Backend:
    """The ops, bound to a runtime."""
    products, look_ups, pack = _products(runtime), _look_ups(runtime), pack_on(runtime)
    return replace(
        reference.create(device, threads=None, dtype=torch.float32),
        name="cpu",
        summary=f"cpu: compiled kernels on {runtime.level}, {runtime.threads} threads",
        row_invariant=True,
        kv_dtypes=(*reference.FLOATS, *reference.QUANTIZED),
        any_matmul=any_matmul_on(runtime),
        any_embed=any_embed_on(runtime),
        matmul={
            **products,
            Outlying: outlying_matmul_on(runtime, products),
            Rotated: rotated_matmul_on(runtime, products),
            Runs: runs_matmul_on(runtime, products),
        },
        takes=dict.fromkeys((Outlying, Rotated, Runs), multiplies_within(products)),
        embed={
            **look_ups,
            Outlying: outlying_rows_on(runtime, look_ups),
            Runs: runs_rows_on(runtime, look_ups),
        },
        pack={**dict.fromkeys(PACKED_LAYOUTS, pack), **packs_within(pack, products)},
        rms_norm=rms_norm_on(runtime),
        add_rms_norm=add_rms_norm_on(runtime),
        rotate_and_store=rotate_and_store_on(runtime),
        attention=attention_on(runtime),
        gated=gated_on(runtime),
        select=select_on(runtime),
        uniform=uniform_on(runtime),
        argmax=argmax_on(runtime),
        draw=draw_on(runtime),
        logsumexp=logsumexp_on(runtime),
        uncertainty=uncertainty_on(runtime),
        deviation=deviation_on(runtime),
        divide=change_on(runtime, "divide"),
        bend=bend_on(runtime),
        prefer=prefer_on(runtime),
        keep=keep_on(runtime, Rule.BELOW),
        keep_near=keep_on(runtime, Rule.BELOW_LARGEST),
        keep_up_to=keep_on(runtime, Rule.ABOVE),
        least_from=least_from_on(runtime),
        keep_top_k=keep_top_k_on(runtime),
        keep_top_p=keep_top_p_on(runtime),
        keep_tail_free=change_on(runtime, "keep_tail_free"),
        keep_typical=change_on(runtime, "keep_typical"),
        skew=change_on(runtime, "skew"),
        find_paths=find_paths_on(runtime),
        capture=capture_on(runtime),
    )


def _products(runtime: Runtime) -> MatMuls:
    """Of weights that consist of no others."""
    return {
        Dense: dense_matmul_on(runtime),
        Narrow: narrow_matmul_on(runtime),
        RowScaled: row_grouped_matmul_on(runtime),
        Tiled: tiled_matmul_on(runtime),
        Unrolled: trellis_matmul_on(runtime),
        Vectors: codebook_matmul_on(runtime),
    }


def _look_ups(runtime: Runtime) -> Embeds:
    """Of the same weights."""
    source_rows = sourced_rows_on(runtime)
    return {
        Dense: embed_dense_on(runtime),
        Narrow: narrow_rows_on(runtime),
        RowScaled: source_rows,
        Tiled: tiled_rows_on(runtime),
        Unrolled: source_rows,
        Vectors: source_rows,
    }
