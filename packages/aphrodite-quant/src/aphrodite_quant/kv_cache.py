"""What a checkpoint says of its KV cache: the numbers that it was made for, and their scales.

llm-compressor states a `kv_cache_scheme` in `quantization_config`; ModelOpt a
`kv_cache_quant_algo`, there or in `hf_quant_config.json`. A key or value is what is stored as
float8_e4m3fn times the scale of its layer. Tools call the scales of a layer `k_scale` and `v_scale`
(of the attention, or of the projections that make keys and values), `output_scale` of those
projections, or `kv_scale` for both.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from aphrodite_quant.checkpoint import Checkpoint
from aphrodite_quant.containers.store import TensorStore
from aphrodite_quant.errors import CheckpointError, TensorError

_SCALE = re.compile(
    r"(?:.*\.)?layers\.(?P<layer>\d+)\.\w*(?:attn|attention)\.(?:attn\.)?"
    r"(?:(?:[qkv]_proj\.)?(?P<part>q|k|v|kv|prob)_scale|(?P<output>[qkv])_proj\.output_scale)"
)


class CacheScales(NamedTuple):
    """Of the keys and values of one layer; None: the checkpoint has none."""

    key: float | None = None
    value: float | None = None


def stated_kv_cache(checkpoint: Checkpoint) -> str | None:
    """The numbers that the cache should hold: `fp8`, `int8`, … in lower case; None: any will do.

    Raises:
        CheckpointError: the statement has a form that is not known.
    """
    stated: Mapping[str, Any] = checkpoint.quant_config or {}
    scheme = stated.get("kv_cache_scheme")
    if scheme is not None:
        return _of_scheme(checkpoint, scheme)
    algorithm = stated.get("kv_cache_quant_algo")
    if algorithm is None:
        algorithm = checkpoint.modelopt_config.get("kv_cache_quant_algo")
    return None if algorithm is None else str(algorithm).lower()


def _of_scheme(checkpoint: Checkpoint, scheme: object) -> str:
    bits, kind = None, None
    if isinstance(scheme, dict):
        fields = cast("dict[str, object]", scheme)
        bits, kind = fields.get("num_bits"), fields.get("type")
    if not isinstance(bits, int) or kind not in ("float", "int"):
        raise CheckpointError(
            f"{checkpoint.path}: kv_cache_scheme is {scheme!r}; expected an object with num_bits "
            "and a type of float or int"
        )
    return f"{'fp' if kind == 'float' else 'int'}{bits}"


def is_cache_scale(name: str) -> bool:
    """Whether a tensor has that name for a scale of attention, not of a weight."""
    return _SCALE.fullmatch(name) is not None


def read_cache_scales(store: TensorStore) -> dict[int, CacheScales]:
    """The scales of float8_e4m3fn caches, by layer; those of queries and weights are left.

    Raises:
        TensorError: one is no number above 0.
    """
    scales: dict[int, CacheScales] = {}
    for name in store.names():
        match = _SCALE.fullmatch(name)
        part = match and (match["part"] or match["output"])
        if match is None or part not in ("k", "v", "kv"):
            continue
        scale = _number(store, name)
        fields = {"k": {"key": scale}, "v": {"value": scale}}.get(
            part, {"key": scale, "value": scale}
        )
        layer = int(match["layer"])
        scales[layer] = scales.get(layer, CacheScales())._replace(**fields)
    return scales


def _number(store: TensorStore, name: str) -> float:
    info = store.info(name)
    tensor = store.read(name)
    if tensor.numel() != 1:
        raise TensorError(
            f"{info.file}: tensor {name!r} is {info}; expected one number, the scale of a layer; "
            "choose a KV cache of another type, which has scales of its own"
        )
    number = float(tensor.float())
    if not 0 < number < float("inf"):
        raise TensorError(f"{info.file}: tensor {name!r} is {number}; expected a number above 0")
    return number
