"""Which failures of reading a model's files are the user's to mend, and in whose words."""

from aphrodite_quant.errors import QuantError

from aphrodite_engine.errors import EngineError, ModelError


def file_error(error: BaseException) -> EngineError | None:
    """The error to show for a failure while reading files; None if it is a defect of ours."""
    match error:
        case EngineError():
            return error
        case QuantError():
            return ModelError(str(error))
        case OSError():
            return ModelError(f"{error.strerror or error}: {error.filename}")
        case _:
            return None
