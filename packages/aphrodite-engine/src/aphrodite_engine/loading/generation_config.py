"""How a model's makers would have it sampled: `generation_config.json` in its folder, or what a
GGUF file says under `general.sampling.`, as llama.cpp reads it.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from aphrodite_quant.errors import QuantError
from aphrodite_quant.json_object import read_json_object
from aphrodite_quant.location import find_weights

from aphrodite_engine.errors import ConfigError, RequestError
from aphrodite_engine.loading.source import DEMO_FILE
from aphrodite_engine.sampling.catalog import stages_from

MODEL: Final = "auto"
"""What the model itself says."""
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
_GGUF: Final = "general.sampling."
_GGUF_FIELDS: Final = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "xtc_probability": "xtc_probability",
    "xtc_threshold": "xtc_threshold",
    "penalty_repeat": "repetition_penalty",
    "penalty_last_n": "repetition_penalty_range",
    "mirostat": "mirostat_mode",
    "mirostat_tau": "mirostat_tau",
    "mirostat_eta": "mirostat_eta",
}
"""Names of a request's fields for GGUF's."""
_PUBLISHED: Final = {DEMO_FILE: {"temperature": 0.2, "top_p": 0.9}}
"""What makers say on their pages, of files that say nothing, by their names."""
_DIGITS: Final = 6
"""Of GGUF's numbers, which are float32: 0.95 is written as 0.949999988."""
_log = logging.getLogger(__name__)


def sampling_defaults(source: str, model: Path) -> dict[str, Any]:
    """Sampler fields for requests that say nothing themselves; the log tells them.

    A field that cannot be honoured is left out with a warning, and so is all that the model says
    if it cannot be understood.

    Args:
        source: `auto`, what the model says; or as `named_content` takes it.
        model: its folder or GGUF file.

    Raises:
        ConfigError: the file that the source names is not there, or cannot be understood.
    """
    found = _of_the_model(model) if source == MODEL else _known(named_content(source))
    kept = {name: value for name, value in found.items() if _works(name, value)}
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
    except QuantError as error:
        raise ConfigError(f"generation_config: {error}") from error


def _of_the_model(model: Path) -> dict[str, Any]:
    """Fields of a request; generation_config.json counts before what a GGUF file says."""
    try:
        if (path := model / _NAME).is_file():
            return _known(read_json_object(path))
        found = _of_gguf(model)
    except QuantError as error:
        _log.warning("the model's sampling defaults are left out: %s", error)
        return {}
    return found or _PUBLISHED.get(model.name, {})


def _known(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: content[name] for name in _FIELDS if content.get(name) is not None}


def _of_gguf(model: Path) -> dict[str, Any]:
    if not model.exists():
        return {}
    said = {
        name.removeprefix(_GGUF): value
        for name, value in find_weights(model).read_metadata().items()
        if name.startswith(_GGUF)
    }
    for name in sorted(said.keys() - _GGUF_FIELDS.keys()):
        _log.warning("a sampling default of the model is left out: %s%s", _GGUF, name)
    if said.get("penalty_last_n") == 0:  # no token counts; in a request it would be all
        del said["penalty_last_n"]
        said.pop("penalty_repeat", None)
    return {
        field: float(f"{said[name]:.{_DIGITS}g}") if isinstance(said[name], float) else said[name]
        for name, field in _GGUF_FIELDS.items()
        if name in said
    }


def _works(name: str, value: object) -> bool:
    """A request could give it."""
    fields: Mapping[str, object] = {name: value}
    try:
        stages_from(fields)
    except RequestError as error:
        _log.warning("a sampling default of the model is left out: %s", error)
        return False
    return True
