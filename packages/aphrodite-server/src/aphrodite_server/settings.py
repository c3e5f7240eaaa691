"""How the server is set up: the only reader of the environment in this package.

Variables are named APHRODITE_ plus the field's name (APHRODITE_PORT); flags of the command line
override them.
"""

from pathlib import Path
from typing import Annotated, Literal

from aphrodite_engine.loading.generation_config import MODEL, NONE
from pydantic import AliasChoices, BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

LogLevel = Literal["debug", "info", "warning", "error"]


def _split(value: object) -> object:
    return value.replace(",", " ").split() if isinstance(value, str) else value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _source(value: object) -> object:
    """Words in any case; elsewhere the server's own defaults go by its name. Else it is a path."""
    word = _lower(value)
    return {"aphrodite": NONE, NONE: NONE, MODEL: MODEL}.get(str(word), value)


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]


class Settings(BaseSettings):
    """What the server is told at start; the engine has its own configuration."""

    model_config = SettingsConfigDict(
        env_prefix="APHRODITE_", frozen=True, populate_by_name=True, env_ignore_empty=True
    )

    host: str = "0.0.0.0"
    """Address to listen on."""
    port: Annotated[int, Field(ge=0, le=65535)] = 2242
    """Port to listen on; 0: any free one."""
    api_keys: Names = Field(
        default=(),
        repr=False,
        validation_alias=AliasChoices("APHRODITE_API_KEYS", "APHRODITE_API_KEY"),
    )
    """Keys that open the server; none: it is open to all. Separated by commas or spaces."""
    served_model_names: Names = ()
    """Names under which the model answers; none: as it was given."""
    strict_fields: bool = False
    """Refuse requests with fields that nobody knows."""
    generation_config: Annotated[str, BeforeValidator(_source)] = MODEL
    """Sampling defaults of requests and presets that leave them out: `auto`, the model's; `none`;
    or the path of a generation_config.json or of its folder."""
    sampler_presets: Path | None = None
    """Folder of YAML files, each a set of sampler fields; its name is the file's."""
    default_preset: str | None = None
    """Preset of requests that name none."""
    forced_preset: str | None = None
    """Preset whose fields go before those of requests."""
    priorities: bool = False
    """Requests may bring a priority."""
    max_body_bytes: Annotated[int, Field(ge=1)] = 32 * 2**20
    """Largest body of a request."""
    log_level: Annotated[LogLevel, BeforeValidator(_lower)] = "info"
