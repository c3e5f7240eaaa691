"""What crosses between the front process and the engine process, as MessagePack."""

from typing import Literal, TypeAlias

import msgspec

from aphrodite_engine.config import EngineConfig
from aphrodite_engine.info import ModelInfo
from aphrodite_engine.outputs import EngineStats, RequestOutput
from aphrodite_engine.request import EngineRequest


class Start(msgspec.Struct, frozen=True, tag=True):
    """Load the model; the first message of all."""

    config: EngineConfig
    end_tokens: list[int]
    """Tokens that end a text."""


class Add(msgspec.Struct, frozen=True, tag=True):
    """Queue a request."""

    request: EngineRequest


class Abort(msgspec.Struct, frozen=True, tag=True):
    """Forget a request, or one of its completions."""

    id: str
    choice: int | None = None


class Rewind(msgspec.Struct, frozen=True, tag=True):
    """Take a completion back, and let it go on otherwise."""

    id: str
    choice: int
    kept: int
    """Tokens of the output that stay."""
    banned: list[int]
    """What cannot come behind them."""


class Stop(msgspec.Struct, frozen=True, tag=True):
    """Finish the launched step and exit."""


class Hello(msgspec.Struct, frozen=True, tag=True):
    """The process is up and waits for `Start`."""


class Progress(msgspec.Struct, frozen=True, tag=True):
    """A line for people, while loading."""

    text: str


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The model answers from here on."""

    info: ModelInfo


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The model cannot be loaded; the process exits."""

    kind: Literal["config", "model", "internal"]
    message: str


class Refused(msgspec.Struct, frozen=True, tag=True):
    """A request that can never run."""

    id: str
    kind: Literal["request", "context", "overloaded", "internal"]
    message: str
    field: str | None


class News(msgspec.Struct, frozen=True, tag=True):
    """Outputs of a step; empty as a heartbeat."""

    outputs: list[RequestOutput]
    stats: EngineStats


ToEngine: TypeAlias = Start | Add | Abort | Rewind | Stop
ToFront: TypeAlias = Hello | Progress | Ready | Failed | Refused | News
