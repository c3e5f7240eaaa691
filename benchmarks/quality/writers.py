"""Checkpoints of the demo model as other tools write them, for run.py and answers.py to measure.

    python3 -m uv run python benchmarks/quality/writers.py text --folder DIR
    PYTHON benchmarks/quality/writers.py original --folder DIR --gguf FILE
    PYTHON benchmarks/quality/writers.py NAME [...] --folder DIR

First, the calibration pieces of the engine's own text are written as tokens, and the weights of the
GGUF file in bfloat16 by transformers. Then each tool, in the environment of PYTHON, which needs
nothing of this repository, quantises those weights on a CPU: DIR/NAME is what it wrote, colons in a
name being hyphens. A tool that needs no text gets none, one that takes long gets little (a file for
each is in `writing/`); versions are printed, to be told in the documentation. GPTQModel needs
GPTQMODEL_CPU_WORKERS=2 on a machine of two cores.
"""

import argparse
import json
from pathlib import Path

from writing import (
    autoawq,
    autoround,
    exllamav3,
    gptqmodel,
    llm_compressor,
    modelopt,
    quanto,
    quark,
    torchao,
)
from writing.shared import LENGTH, PIECES, Writer

WRITERS: dict[str, Writer] = {
    name: writer
    for tool in (
        gptqmodel,
        autoround,
        llm_compressor,
        autoawq,
        modelopt,
        quanto,
        torchao,
        exllamav3,
        quark,
    )
    for name, writer in tool.WRITERS.items()
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", metavar="NAME", help=", ".join(WRITERS))
    parser.add_argument("--folder", type=Path, default=Path("quality-checkpoints"))
    parser.add_argument("--gguf", type=Path, help="the demo model's file, for original")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in options.names:
        if name == "text":
            _write_text(options.folder)
        elif name == "original":
            _write_original(options.folder, options.gguf)
        else:
            WRITERS[name](options.folder, options.folder / name.replace(":", "-"))


def _write_text(folder: Path) -> None:
    from aphrodite_engine.config import EngineConfig
    from aphrodite_engine.loading.source import find_model_path
    from aphrodite_engine.loading.text import load_text
    from aphrodite_engine.quantizing.corpus import read_corpus

    path = find_model_path("demo", None, None)
    tokenizer = load_text(EngineConfig(model=str(path)), lambda line: None).tokenizer
    pieces = read_corpus(None, tokenizer, PIECES, LENGTH).calibration
    (folder / "calibration.json").write_text(json.dumps(pieces.tolist()))
    print("original:", path)


def _write_original(folder: Path, gguf: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    read = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.bfloat16)
    if hasattr(read.config, "quantization_config"):
        del read.config.quantization_config  # a model read from GGUF is not saved otherwise
    model = AutoModelForCausalLM.from_config(read.config, dtype=torch.bfloat16)
    model.load_state_dict(read.state_dict())
    model.save_pretrained(folder / "original")
    AutoTokenizer.from_pretrained(**place).save_pretrained(folder / "original")


if __name__ == "__main__":
    main()
