"""What the writers share: text, weights and tokenizer in the folder, and what is left plain."""

import importlib.metadata
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

Writer = Callable[[Path, Path], None]
"""Writes the model in a folder to another in some format."""
PIECES = 16
LENGTH = 512
ALL, FEW = (PIECES, LENGTH), (8, 256)
"""Pieces that a tool calibrates with, and of how many tokens; few where more take an hour."""
GROUP = 64
"""The largest power of two that divides all columns of the model, 576 and 1536."""


def calibration(folder: Path, size: tuple[int, int] = ALL) -> list[list[int]]:
    """So many pieces, the first tokens of each."""
    pieces, (count, length) = json.loads((folder / "calibration.json").read_text()), size
    return [piece[:length] for piece in pieces[:count]]


def original(folder: Path, dtype: str = "bfloat16") -> Any:
    """The model; products in float32 are several times as fast on a CPU with none in bfloat16."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(str(folder / "original"), dtype=dtype)


def halve_plain(output: Path) -> None:
    """Make bfloat16 of embedding and norms, where the tool leaves them in float32 or float16."""
    import torch
    from safetensors.torch import load_file, save_file

    for file in output.glob("*.safetensors"):
        tensors = load_file(file)
        for name, tensor in tensors.items():
            if "embed" in name or "norm" in name:
                tensors[name] = tensor.to(torch.bfloat16)
        save_file(tensors, file, {"format": "pt"})


def tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder / "original"))


def copy_tokenizer(folder: Path, output: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(folder / "original" / name, output / name)


def tell(*packages: str) -> None:
    print(*(f"{package} {importlib.metadata.version(package)}" for package in packages), flush=True)
