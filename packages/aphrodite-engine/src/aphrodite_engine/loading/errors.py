"""Which failures of loading are the user's to mend, and in whose words."""

import torch
from aphrodite_kernels.errors import BackendError, KernelError

from aphrodite_engine.errors import ConfigError, EngineError, ModelError
from aphrodite_engine.execution.memory import shortage
from aphrodite_engine.loading.file_errors import file_error


def loading_error(error: BaseException) -> EngineError | None:
    """The error to show for a failure while loading; None if it is a defect of ours."""
    match error:
        case BackendError():
            return ConfigError(str(error))
        case KernelError():
            return ModelError(str(error))
        case torch.OutOfMemoryError():
            return ConfigError(
                f"the model does not fit: {shortage(error)}; lower --max-num-batched-tokens, use a "
                "smaller model, or free memory that other programs hold"
            )
        case MemoryError():
            return ConfigError(
                f"not enough memory: {error}; lower --max-model-len or --max-num-seqs"
            )
        case _:
            return file_error(error)
