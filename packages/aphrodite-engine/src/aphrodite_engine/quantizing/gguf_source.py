"""What a GGUF file of a model contains, before types are chosen: metadata and tensors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from aphrodite_quant import MetadataValue
from aphrodite_quant.ggml.write import Source, sources_of

from aphrodite_engine.errors import ModelError
from aphrodite_engine.loading.model import OpenModel


@dataclass(frozen=True, slots=True)
class GgufContents:
    """Metadata, and tensors that are read when they are written."""

    metadata: Mapping[str, MetadataValue]
    tensors: Sequence[Source]
    stored_name: Callable[[str], str | None]
    """From a module's Hugging Face name to that in the file."""


def gguf_contents(source: OpenModel) -> GgufContents:
    """Those of a GGUF file, as they are.

    Raises:
        ModelError: the model is a directory.
    """
    if source.gguf is None:
        raise ModelError(
            f"{source.checkpoint.path} is a directory, and only GGUF files are written as GGUF; "
            "convert it with llama.cpp's convert_hf_to_gguf.py first"
        )
    checkpoint = source.checkpoint
    return GgufContents(checkpoint.metadata, sources_of(checkpoint.store), source.gguf.stored_name)
