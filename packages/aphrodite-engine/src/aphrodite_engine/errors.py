"""What can go wrong in the engine.

EngineError
├── ConfigError            the configuration cannot be honoured on this machine or for this model
├── ModelError             the checkpoint is not a model this engine can run
│   └── ModelNotFoundError no such path, repository or revision
├── RequestError           this request is at fault (names the field); others go on
│   └── ContextLengthError prompt or prompt + max_tokens exceed the context
├── OverloadedError        too many requests are waiting; try again later
├── EngineDeadError        the engine stopped while this request ran; it is being restarted
└── InternalError          a defect: this request failed inside the engine
"""


class EngineError(Exception):
    """Any error of this package."""


class ConfigError(EngineError):
    """The configuration cannot be honoured on this machine or for this model."""


class ModelError(EngineError):
    """The checkpoint is not a model this engine can run."""


class ModelNotFoundError(ModelError):
    """No such path, repository or revision."""


class RequestError(EngineError):
    """This request is at fault; `field` names the parameter, if one is."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class ContextLengthError(RequestError):
    """Prompt or prompt + max_tokens exceed the context."""


class OverloadedError(EngineError):
    """Too many requests are waiting; try again later."""


class EngineDeadError(EngineError):
    """The engine stopped while this request ran; it is being restarted."""


class InternalError(EngineError):
    """A defect: this request failed inside the engine."""
