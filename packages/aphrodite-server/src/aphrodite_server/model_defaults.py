"""What the model's makers recommend for requests that say nothing themselves."""

import logging
from pathlib import Path
from typing import Any

from aphrodite_engine.errors import ModelError, RequestError
from aphrodite_engine.loading.generation_config import generation_defaults
from aphrodite_engine.sampling.catalog import stages_from

from aphrodite_server.settings import Settings

_OFF_BY = "--generation-config none leaves them out"
_log = logging.getLogger(__name__)


def model_defaults(settings: Settings, model: Path) -> dict[str, Any]:
    """Sampler fields of the model's generation_config.json that can be honoured; tells them.

    Args:
        settings: may leave them out.
        model: its file or folder.
    """
    if settings.generation_config == "none":
        return {}
    try:
        recommended = generation_defaults(model)
    except ModelError as error:
        _log.warning("the model's sampling defaults are left out: %s", error)
        return {}
    kept = {name: value for name, value in recommended.items() if _works(name, value)}
    if kept:
        told = ", ".join(f"{name} {value}" for name, value in kept.items())
        _log.info("sampling defaults of the model: %s; %s", told, _OFF_BY)
    return kept


def _works(name: str, value: object) -> bool:
    try:
        stages_from({name: value})
    except RequestError as error:
        _log.warning("a sampling default of the model is left out: %s", error)
        return False
    return True
