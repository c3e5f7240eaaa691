"""The record of ops: every launcher in its place, bound to one device."""

from dataclasses import replace

import torch

from aphrodite_kernels.backend import Backend
from aphrodite_kernels.backends import reference
from aphrodite_kernels.backends.triton.activation import gated_on
from aphrodite_kernels.backends.triton.attention import attention_on, steady_attention_on
from aphrodite_kernels.backends.triton.composed import (
    rotated_matmul,
    runs_rows,
    sourced_rows,
)
from aphrodite_kernels.backends.triton.dense import (
    dense_matmul,
    dense_repack,
    dequantised_matmul,
    steady_matmul,
)
from aphrodite_kernels.backends.triton.dense_tiles import Workspace, workspace_on
from aphrodite_kernels.backends.triton.device import describe, overlaps, reads_float8
from aphrodite_kernels.backends.triton.gather import embed_dense_on, select_on
from aphrodite_kernels.backends.triton.ggml import (
    Fragments,
    PartWorkspace,
    embed_fragments_on,
    ggml_matmul,
    pack_fragments,
    pack_grouped,
    pack_lookup,
    pack_microscaled,
    steady_ggml_matmul,
)
from aphrodite_kernels.backends.triton.graph import capture_on
from aphrodite_kernels.backends.triton.locate import locate_on
from aphrodite_kernels.backends.triton.looked import (
    LOOKED,
    looked_matmul,
    pack_looked,
    steady_looked_matmul,
)
from aphrodite_kernels.backends.triton.norm import add_rms_norm_on, rms_norm_on
from aphrodite_kernels.backends.triton.outlying import outlying_matmul, outlying_rows
from aphrodite_kernels.backends.triton.runs import runs_matmul
from aphrodite_kernels.backends.triton.sampling_argmax import argmax_on
from aphrodite_kernels.backends.triton.sampling_draw import draw_on
from aphrodite_kernels.backends.triton.sampling_keep import keep_near_on, keep_on, least_from_on
from aphrodite_kernels.backends.triton.sampling_spread import deviation_on, uncertainty_on
from aphrodite_kernels.backends.triton.sampling_sums import logsumexp_on
from aphrodite_kernels.backends.triton.sampling_top import keep_top_k_on, keep_top_p_on
from aphrodite_kernels.backends.triton.sampling_typical import keep_typical_on
from aphrodite_kernels.backends.triton.sampling_uniform import uniform_on
from aphrodite_kernels.backends.triton.scaled import (
    has_kernels,
    pack_scaled,
    rounded_matmul,
    scaled_matmul,
    steady_scaled_matmul,
)
from aphrodite_kernels.backends.triton.scaled_inputs import scaled_inputs
from aphrodite_kernels.backends.triton.store_kv import rotate_and_store_on
from aphrodite_kernels.backends.triton.trellis import (
    TrellisFields,
    pack_trellis,
    steady_trellis_matmul,
    trellis_matmul,
)
from aphrodite_kernels.composed import multiplies_within, packs_within
from aphrodite_kernels.layouts import (
    Dense,
    GgmlBlocks,
    Grouped,
    Lookup,
    Microscaled,
    PackedWeight,
    Scaled,
)
from aphrodite_kernels.layouts.outlying import Outlying
from aphrodite_kernels.layouts.rotated import Rotated
from aphrodite_kernels.layouts.runs import Runs
from aphrodite_kernels.layouts.trellis import Trellis
from aphrodite_kernels.protocols import Embeds, Inputs, MatMuls, Repacks


def backend_on(device: torch.device, threads: int | None, dtype: torch.dtype) -> Backend:
    """The fastest kernels on `device`; `steady` has those in the place of which others round a row
    by the company it is in.
    """
    workspace, overlapped = workspace_on(device), overlaps(device)
    parts = PartWorkspace(device)
    float8 = reads_float8(device)
    plain = reference.create(device, threads=threads, dtype=dtype)
    norm, gated = add_rms_norm_on(overlapped=overlapped), gated_on(overlapped=overlapped)
    products: MatMuls = {
        Dense: dense_matmul(workspace),
        Fragments: ggml_matmul(workspace, parts, overlapped=overlapped),
        **dict.fromkeys(LOOKED.values(), looked_matmul(parts)),
        TrellisFields: trellis_matmul(parts, overlapped=overlapped),
    }
    unread = () if float8 else (torch.float8_e4m3fn,)
    fast = replace(
        plain,
        name="triton",
        summary=f"triton: kernels for {describe(device)}, {dtype}",
        capture=capture_on(device) if device.type == "cuda" else None,
        elastic=False,
        kv_dtypes=tuple(kind for kind in plain.kv_dtypes if kind not in unread),
        pack=_packs(dtype, products),
        any_matmul=dequantised_matmul,
        matmul={
            **products,
            Scaled: scaled_matmul(workspace, overlapped=overlapped),
            **_composed(products, steady=False),
            Rotated: rotated_matmul(products),
        },
        rounded_matmul=rounded_matmul(workspace),
        takes={
            Scaled: has_kernels,
            **dict.fromkeys((Outlying, Runs, Rotated), multiplies_within(products)),
        },
        inputs={Scaled: scaled_inputs(Inputs(norm, gated), workspace, overlapped=overlapped)},
        embed=_look_ups(plain, dtype, overlapped=overlapped),
        rms_norm=rms_norm_on(overlapped=overlapped),
        add_rms_norm=norm,
        rotate_and_store=rotate_and_store_on(overlapped=overlapped),
        attention=attention_on(device, overlapped=overlapped),
        gated=gated,
        select=select_on(overlapped=overlapped),
        locate=locate_on(overlapped=overlapped),
        uniform=uniform_on(overlapped=overlapped),
        argmax=argmax_on(overlapped=overlapped),
        draw=draw_on(overlapped=overlapped),
        logsumexp=logsumexp_on(overlapped=overlapped),
        uncertainty=uncertainty_on(overlapped=overlapped),
        deviation=deviation_on(overlapped=overlapped),
        keep=keep_on(above=False, overlapped=overlapped),
        keep_near=keep_near_on(overlapped=overlapped),
        keep_up_to=keep_on(above=True, overlapped=overlapped),
        least_from=least_from_on(overlapped=overlapped),
        keep_top_k=keep_top_k_on(overlapped=overlapped),
        keep_top_p=keep_top_p_on(overlapped=overlapped),
        keep_typical=keep_typical_on(overlapped=overlapped),
    )

    return replace(fast, steady=lambda: _steady(fast, workspace, overlapped=overlapped))


def _steady(fast: Backend, workspace: Workspace, *, overlapped: bool) -> Backend:
    """The kernels that round a row alike in any company, in the place of the others."""
    products: MatMuls = {
        Dense: steady_matmul(workspace),
        Scaled: steady_scaled_matmul(workspace),
        Fragments: steady_ggml_matmul(overlapped=overlapped),
        TrellisFields: steady_trellis_matmul(overlapped=overlapped),
        **dict.fromkeys(LOOKED.values(), steady_looked_matmul),
    }
    return replace(
        fast,
        summary=f"{fast.summary}, deterministic",
        row_invariant=True,
        matmul={**products, **_composed(products, steady=True)},
        takes={**fast.takes, **dict.fromkeys((Outlying, Runs), multiplies_within(products))},
        inputs={},
        attention=steady_attention_on(overlapped=overlapped),
        steady=None,
    )


def _composed(products: MatMuls, *, steady: bool) -> MatMuls:
    """Of weights that consist of others, whose products round as those of their parts do."""
    return {Outlying: outlying_matmul(products, steady=steady), Runs: runs_matmul(products)}


def _look_ups(plain: Backend, dtype: torch.dtype, *, overlapped: bool) -> Embeds:
    """Of rows of a weight."""
    look_ups: Embeds = {
        Dense: embed_dense_on(dtype, overlapped=overlapped),
        Fragments: embed_fragments_on(dtype, overlapped=overlapped),
        **dict.fromkeys(LOOKED.values(), sourced_rows(plain.any_embed)),
    }
    return {
        **look_ups,
        Outlying: outlying_rows(look_ups, plain.any_embed, dtype),
        Runs: runs_rows(look_ups, plain.any_embed, dtype),
    }


def _packs(dtype: torch.dtype, products: MatMuls) -> Repacks:
    """How weights are laid out anew."""

    def pack_table(weight: PackedWeight) -> PackedWeight:
        # Fragments' tables become 16 bits wide, which float32 would show.
        packed = weight if dtype == torch.float32 else pack_lookup(weight)
        return pack_looked(packed) if packed is weight else packed

    def pack_any(weight: PackedWeight) -> PackedWeight:
        pack = packs.get(type(weight))
        return pack(weight) if pack else weight

    packs: Repacks = {
        Dense: dense_repack(dtype),
        Scaled: pack_scaled,
        GgmlBlocks: pack_fragments,
        Grouped: pack_grouped,
        Microscaled: pack_microscaled,
        **dict.fromkeys(LOOKED, pack_looked),
        Lookup: pack_table,
        Trellis: pack_trellis,
    }
    return {**packs, **packs_within(pack_any, products)}
