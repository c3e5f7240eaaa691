"""Checkpoints of the demo model as other tools write them, for run.py and answers.py to measure.

    python3 -m uv run python benchmarks/quality/writers.py text --folder DIR
    PYTHON benchmarks/quality/writers.py original --folder DIR --gguf FILE
    PYTHON benchmarks/quality/writers.py NAME [...] --folder DIR

First, the calibration pieces of the engine's own text are written as tokens, and the weights of the
GGUF file in bfloat16 by transformers. Then each tool, in the environment of PYTHON, which needs
nothing of this repository, quantises those weights on a CPU: DIR/NAME is what it wrote, colons in a
name being hyphens. A tool that needs no text gets none; versions are printed, to be told in the
documentation. GPTQModel needs GPTQMODEL_CPU_WORKERS=2 on a machine of two cores.
"""

import argparse
import importlib.metadata
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

PIECES = 16
LENGTH = 512
GROUP = 64
"""The largest power of two that divides all columns of the model, 576 and 1536."""


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


def _pieces(folder: Path) -> list[list[int]]:
    return json.loads((folder / "calibration.json").read_text())


def _original(folder: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(str(folder / "original"), dtype=torch.bfloat16)


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder / "original"))


def _copy_tokenizer(folder: Path, output: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(folder / "original" / name, output / name)


def _exllamav3(folder: Path, output: Path, bits: float, codebook: str = "mul1") -> None:
    """Tried with exllamav3 1.6.5, whose search for paths needs a GPU."""
    import torch
    from safetensors.torch import save_file

    _tell("exllamav3")
    pieces = folder / "calibration.safetensors"
    save_file({"input_ids": torch.tensor(_pieces(folder), dtype=torch.int32)}, pieces)
    places = ["-i", folder / "original", "-o", output, "-w", folder / f"{output.name}-work"]
    rates = ["-b", bits, "-hb", 6, "-cb", codebook, "-cd", pieces, "-cr", PIECES, "-cc", LENGTH]
    program = [sys.executable, "-m", "exllamav3.conversion.convert_model"]
    subprocess.run([*program, *(str(one) for one in (*places, *rates))], check=True)


def _tell(*packages: str) -> None:
    print(*(f"{package} {importlib.metadata.version(package)}" for package in packages), flush=True)


def _gptqmodel(folder: Path, output: Path, **config: Any) -> None:
    """Tried with GPTQModel 7.6."""
    from gptqmodel import GPTQModel, QuantizeConfig

    _tell("gptqmodel", "transformers")
    model = GPTQModel.load(
        str(folder / "original"), QuantizeConfig(group_size=GROUP, device="cpu", **config)
    )
    pieces = [{"input_ids": one, "attention_mask": [1] * len(one)} for one in _pieces(folder)]
    model.quantize(pieces, batch_size=4)
    model.save(str(output))


def _auto_round(folder: Path, output: Path) -> None:
    """Tried with auto-round 0.16, without its search for roundings, too long for two cores."""
    import torch
    from auto_round import AutoRound

    _tell("auto-round", "transformers")
    pieces = [{"input_ids": torch.tensor([one])} for one in _pieces(folder)]
    rounding = AutoRound(
        _original(folder),
        _tokenizer(folder),
        bits=4,
        group_size=GROUP,
        sym=True,
        iters=0,
        nsamples=len(pieces),
        seqlen=LENGTH,
        dataset=pieces,
        device_map="cpu",
    )
    rounding.quantize_and_save(str(output), format="auto_round")
    (inside,) = output.iterdir()
    for file in inside.iterdir():
        file.rename(output / file.name)
    inside.rmdir()


def _llm_compressor(folder: Path, output: Path, recipe: Callable[[], Any]) -> None:
    """Tried with llm-compressor 0.14."""
    from datasets import Dataset
    from llmcompressor import oneshot

    _tell("llmcompressor", "compressed-tensors", "transformers")
    pieces = _pieces(folder)
    masks = [[1] * len(one) for one in pieces]
    model = _original(folder)
    oneshot(
        model=model,
        processor=_tokenizer(folder),
        dataset=Dataset.from_dict({"input_ids": pieces, "attention_mask": masks}),
        recipe=recipe(),
        max_seq_length=LENGTH,
        num_calibration_samples=len(pieces),
    )
    model.save_pretrained(str(output), save_compressed=True)
    _copy_tokenizer(folder, output)


def _smoothed_integers() -> Any:
    from llmcompressor.modifiers.quantization import GPTQModifier
    from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier

    return [
        SmoothQuantModifier(smoothing_strength=0.8),
        GPTQModifier(targets="Linear", scheme="W8A8", ignore=["lm_head"]),
    ]


def _observed(scheme: str) -> Any:
    from llmcompressor.modifiers.quantization import QuantizationModifier

    return QuantizationModifier(targets="Linear", scheme=scheme, ignore=["lm_head"])


def _modelopt(folder: Path, output: Path, config: str) -> None:
    """Tried with NVIDIA ModelOpt 0.47."""
    import modelopt.torch.quantization as quantization
    import torch
    from modelopt.torch.export import export_hf_checkpoint

    _tell("nvidia-modelopt", "transformers")
    model = _original(folder)

    @torch.inference_mode()
    def run(model: Any) -> None:
        for piece in _pieces(folder):
            model(torch.tensor([piece]))

    quantization.quantize(model, getattr(quantization, config), run)
    export_hf_checkpoint(model, export_dir=str(output))
    _copy_tokenizer(folder, output)


def _quanto(folder: Path, output: Path, weights: str) -> None:
    """Tried with optimum-quanto 0.2.7."""
    from optimum.quanto import QuantizedModelForCausalLM

    _tell("optimum-quanto", "transformers")
    model = QuantizedModelForCausalLM.quantize(
        _original(folder), weights=weights, exclude="lm_head"
    )
    model.save_pretrained(output)
    _copy_tokenizer(folder, output)


def _quark(folder: Path, output: Path, scheme: str) -> None:
    """Tried with AMD Quark 0.13."""
    import torch
    from quark.torch import LLMTemplate, ModelQuantizer, export_safetensors

    _tell("amd-quark", "transformers")
    model = _original(folder)
    config = LLMTemplate.get("llama").get_config(scheme=scheme, exclude_layers=["lm_head"])
    quantizer = ModelQuantizer(config)
    pieces = [torch.tensor([one]) for one in _pieces(folder)]
    model = quantizer.freeze(quantizer.quantize_model(model, pieces))
    export_safetensors(model, str(output))
    _copy_tokenizer(folder, output)


WRITERS: dict[str, Callable[[Path, Path], None]] = {
    "gptqmodel:4": partial(_gptqmodel, bits=4, desc_act=True),
    "gptqmodel:4:asym": partial(_gptqmodel, bits=4, sym=False, desc_act=False),
    "gptqmodel:8": partial(_gptqmodel, bits=8, desc_act=False),
    "gptqmodel:3": partial(_gptqmodel, bits=3, desc_act=True),
    "auto-round:own": _auto_round,
    "llm-compressor:w8a8": partial(_llm_compressor, recipe=_smoothed_integers),
    "llm-compressor:nvfp4": partial(_llm_compressor, recipe=partial(_observed, "NVFP4")),
    "modelopt:fp8": partial(_modelopt, config="FP8_DEFAULT_CFG"),
    "modelopt:nvfp4": partial(_modelopt, config="NVFP4_DEFAULT_CFG"),
    **{f"quanto:{kind}": partial(_quanto, weights=kind) for kind in ("qint8", "qint4", "qfloat8")},
    **{f"exllamav3:{bits}": partial(_exllamav3, bits=bits) for bits in (2, 3, 4, 1.5, 2.5, 3.5)},
    **{f"exllamav3:4:{b}": partial(_exllamav3, bits=4, codebook=b) for b in ("mcg", "3inst")},
    **{f"quark:{scheme}": partial(_quark, scheme=scheme) for scheme in ("fp8", "int8", "mxfp4")},
}


if __name__ == "__main__":
    main()
