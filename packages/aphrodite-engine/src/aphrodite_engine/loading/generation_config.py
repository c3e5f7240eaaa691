"""How a model's makers would have it sampled: `generation_config.json` in its folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from aphrodite_quant.errors import CheckpointError
from aphrodite_quant.json_object import read_json_object

from aphrodite_engine.errors import ModelError

_FIELDS: Final = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "repetition_penalty",
    "no_repeat_ngram_size",
)
"""Those that mean there what they mean in a request."""


def generation_defaults(model: Path) -> Mapping[str, Any]:
    """Sampler fields that the file names, unchecked; none where there is no file.

    Args:
        model: a folder, or a file, which has nothing of the kind.

    Raises:
        ModelError: the file cannot be understood.
    """
    path = model / "generation_config.json"
    if not path.is_file():
        return {}
    try:
        found = read_json_object(path)
    except CheckpointError as error:
        raise ModelError(str(error)) from error
    return {name: found[name] for name in _FIELDS if found.get(name) is not None}
