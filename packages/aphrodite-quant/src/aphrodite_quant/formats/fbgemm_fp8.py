"""Eight-bit float weights that FBGEMM's tools wrote (`quant_method: fbgemm_fp8`).

`<prefix>.weight` float8_e4m3fn [N, K] beside `weight_scale` [N, 1]; modules that were left
unquantised (`modules_to_not_convert`) have a plain weight. `activation_scale_ub`, an upper limit
of the scales of quantised activations, has nothing to limit: activations are not rounded, or by
rows to what they hold.
"""

from aphrodite_quant.checkpoint import Checkpoint
from aphrodite_quant.formats import fp8
from aphrodite_quant.reader import Reader


def claims(checkpoint: Checkpoint) -> bool:
    """A directory whose config says so."""
    stated = checkpoint.quant_config or {}
    return checkpoint.kind != "gguf" and stated.get("quant_method") == "fbgemm_fp8"


def reader(checkpoint: Checkpoint) -> Reader:
    """The tensors are those of `fp8`, with a scale for every row."""
    return fp8.reader(checkpoint)
