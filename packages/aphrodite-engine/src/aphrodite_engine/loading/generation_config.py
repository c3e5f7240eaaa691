"""How a model's makers would have it sampled: `generation_config.json` in its folder."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from aphrodite_quant.errors import CheckpointError
from aphrodite_quant.json_object import read_json_object

from aphrodite_engine.errors import ConfigError, RequestError
from aphrodite_engine.sampling.catalog import stages_from

MODEL: Final = "auto"
"""The file of the model itself."""
NONE: Final = "none"
_NAME: Final = "generation_config.json"
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
_log = logging.getLogger(__name__)


def sampling_defaults(source: str, model: Path) -> dict[str, Any]:
    """Sampler fields for requests that say nothing themselves; the log tells them.

    A field that cannot be honoured is left out with a warning, and so is the model's own file if
    it cannot be understood.

    Args:
        source: `auto`, the model's own file; or as `named_content` takes it.
        model: its folder, or a file, which has nothing of the kind.

    Raises:
        ConfigError: the file that the source names is not there, or cannot be understood.
    """
    found = _of_the_model(model / _NAME) if source == MODEL else named_content(source)
    kept = {name: found[name] for name in _FIELDS if _works(name, found.get(name))}
    if kept:
        told = ", ".join(f"{name} {value}" for name, value in kept.items())
        _log.info("sampling defaults of the model: %s; generation_config none is without", told)
    return kept


def named_content(source: str) -> dict[str, Any]:
    """What the file at a path holds, or the one in the folder there; of `none`, nothing.

    Raises:
        ConfigError: there is no such file, or it cannot be understood.
    """
    if source == NONE:
        return {}
    given = Path(source)
    path = given / _NAME if given.is_dir() else given
    if not path.is_file():
        raise ConfigError(
            f"generation_config is {source!r}, and {path} does not exist; give {MODEL}, {NONE}, or "
            "the path of such a file or of its folder"
        )
    try:
        return read_json_object(path)
    except CheckpointError as error:
        raise ConfigError(f"generation_config: {error}") from error


def _of_the_model(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return read_json_object(path)
    except CheckpointError as error:
        _log.warning("the model's sampling defaults are left out: %s", error)
        return {}


def _works(name: str, value: object) -> bool:
    """It is given, and a request could give it."""
    if value is None:
        return False
    fields: Mapping[str, object] = {name: value}
    try:
        stages_from(fields)
    except RequestError as error:
        _log.warning("a sampling default of the model is left out: %s", error)
        return False
    return True
