"""What lies beside the weights of a Hugging Face directory: configuration, tokenizer, template."""

import shutil
from collections.abc import Mapping
from typing import Any

import torch

from aphrodite_engine.loading.model import OpenModel
from aphrodite_engine.quantizing.output import MANIFEST, Output
from aphrodite_engine.text.gguf_tokenizer import gguf_tokenizer
from aphrodite_engine.text.tokenizer_files import tokenizer_files

_SUFFIXES = (".json", ".jinja", ".model", ".tiktoken", ".txt")
_OWN = (
    "config.json",
    "quantize_config.json",
    "quant_config.json",
    "quantization_config.json",
    "quanto_qmap.json",
    "model.safetensors.index.json",
)
_STATED = ("quantization_config", "compression_config", "quip_params")
_TEMPLATE = "tokenizer.chat_template"


def plain_dtype(source: OpenModel) -> torch.dtype:
    """Of what is not quantised: what config.json says; bfloat16 if it says nothing."""
    config = source.checkpoint.config
    stated = config.get("dtype") or config.get("torch_dtype")
    known = {"float32": torch.float32, "float16": torch.float16}
    return known.get(str(stated), torch.bfloat16)


def write_side_files(
    source: OpenModel, output: Output, stated: Mapping[str, Any], beside: Mapping[str, Any]
) -> None:
    """Copy them from a directory, or write what the metadata of a GGUF file say.

    `stated` is what config.json says of the format, `beside` are JSON files of its own, by name.

    Raises:
        ModelError: the file's tokenizer is not one that is known.
    """
    output.write_json("config.json", _config(source) | dict(stated))
    for name, value in beside.items():
        output.write_json(name, value)
    if source.gguf is None:
        for file in source.checkpoint.path.iterdir():
            if file.suffix in _SUFFIXES and file.name not in (*_OWN, MANIFEST):
                shutil.copyfile(file, output.path / file.name)
        return
    metadata = source.checkpoint.metadata
    template = metadata.get(_TEMPLATE)
    files = tokenizer_files(
        gguf_tokenizer(metadata), template if isinstance(template, str) else None
    )
    for name, value in files.items():
        output.write_json(name, value)


def _config(source: OpenModel) -> dict[str, Any]:
    if source.gguf is None:
        config = source.checkpoint.config
        return {key: value for key, value in config.items() if key not in _STATED}
    stated = {key: value for key, value in source.gguf.config.items() if value is not None}
    name = "".join(part.capitalize() for part in source.model_type.split("_") if part != "text")
    tokens = {
        f"{role}_token_id": source.checkpoint.metadata.get(f"tokenizer.ggml.{role}_token_id")
        for role in ("bos", "eos")
    }
    return {
        "architectures": [f"{name}ForCausalLM"],
        "torch_dtype": str(plain_dtype(source)).removeprefix("torch."),
        "hidden_act": "gelu_pytorch_tanh" if "gemma" in source.model_type else "silu",
        **stated,
        **{key: token for key, token in tokens.items() if token is not None},
    }
