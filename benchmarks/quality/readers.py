"""What other tools read in a checkpoint, and what is read here: perplexity, and KL of predictions.

    python3 -m uv run python benchmarks/quality/readers.py tokens FILE
    PYTHON benchmarks/quality/readers.py TOOL FILE NAME=PATH [...] --folder DIR
    python3 -m uv run python benchmarks/quality/readers.py here FILE NAME=PATH [...] --folder DIR

TOOL is llama.cpp, transformers, gptqmodel or exllamav3. First, the first 512 held-out tokens of the
default text are written; small_model.py writes such a file for its model. Then the tool, in the
environment of PYTHON, which needs nothing of this repository, reads the checkpoints on a CPU
(exllamav3: on a GPU) and leaves its predictions in the folder. At last they are compared with those
of this engine on --device; rows are added to benchmarks/results/quality/readers.json.
"""

import argparse
import datetime
import json
import math
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy

RESULTS = Path(__file__).resolve().parent.parent / "results" / "quality" / "readers.json"
LENGTH = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["tokens", "here", *TOOLS])
    parser.add_argument("tokens", type=Path, metavar="FILE")
    parser.add_argument("checkpoints", nargs="*", metavar="NAME=PATH")
    parser.add_argument("--folder", type=Path, default=Path("predictions"))
    parser.add_argument("--device", default="cpu", help="of this engine (default %(default)s)")
    options = parser.parse_args()
    if options.what == "tokens":
        options.tokens.write_text(json.dumps(_held_out()))
        return
    tokens = json.loads(options.tokens.read_text())
    options.folder.mkdir(parents=True, exist_ok=True)
    for name, _, path in (one.partition("=") for one in options.checkpoints):
        file = options.folder / f"{name.replace(':', '-')}.npz"
        if options.what == "here":
            _record(
                name, _compared(_here(path, tokens, options.device), file, tokens), options.device
            )
        else:
            told = _log_softmax(TOOLS[options.what](path, tokens))
            numpy.savez(file, predictions=told.astype(numpy.float32), tool=options.what)
            print(name, _perplexity(told, tokens), flush=True)


def _held_out() -> list[int]:
    from aphrodite_engine.config import EngineConfig
    from aphrodite_engine.loading.source import find_model_path
    from aphrodite_engine.loading.text import load_text
    from aphrodite_engine.quantizing.corpus import read_corpus

    config = EngineConfig(model=str(find_model_path("demo", None, None)))
    tokenizer = load_text(config, lambda line: None).tokenizer
    return read_corpus(None, tokenizer, 1, LENGTH).held_out[0].tolist()


def _here(path: str, tokens: list[int], device: str) -> Any:
    import torch
    from aphrodite_engine.loading.model import load_model, open_model
    from aphrodite_engine.quantizing.sequences import input_of
    from aphrodite_kernels.backend import backend_for

    backend = backend_for(torch.device(device))
    loaded = load_model(open_model(Path(path)), backend, LENGTH, lambda read, total: None)
    step = input_of(torch.tensor([tokens]), loaded.source.config, backend)
    with torch.inference_mode():
        return loaded.model.logits(loaded.model.forward(step)[:-1]).float().cpu().numpy()


def _llama_cpp(path: str, tokens: list[int]) -> Any:
    from llama_cpp import Llama

    model = Llama(path, n_ctx=LENGTH, n_batch=LENGTH, logits_all=True, n_threads=1, verbose=False)
    model.eval(tokens)
    return numpy.array(model.scores[: len(tokens) - 1])


def _transformers(path: str, tokens: list[int]) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(path, device_map="cpu", dtype="auto")
    return _torch_logits(model, torch.tensor([tokens]))


def _gptqmodel(path: str, tokens: list[int]) -> Any:
    import torch
    from gptqmodel import BACKEND, GPTQModel

    model = GPTQModel.load(path, backend=BACKEND.TORCH, device="cpu").model
    return _torch_logits(model, torch.tensor([tokens]))


def _exllamav3(path: str, tokens: list[int]) -> Any:
    import torch
    from exllamav3 import Config, Model

    model = Model.from_config(Config.from_directory(path))
    model.load(device="cuda:0")
    logits = model.forward(torch.tensor([tokens]), {"attn_mode": "flash_attn_nc"})
    told = logits[0, :-1, : model.config.vocab_size].float().cpu().numpy()
    model.unload()
    return told


def _torch_logits(model: Any, tokens: Any) -> Any:
    import torch

    with torch.inference_mode():
        return model(tokens).logits[0, :-1].float().numpy()


TOOLS: dict[str, Callable[[str, list[int]], Any]] = {
    "llama.cpp": _llama_cpp,
    "transformers": _transformers,
    "gptqmodel": _gptqmodel,
    "exllamav3": _exllamav3,
}


def _log_softmax(logits: Any) -> Any:
    logits = logits.astype(numpy.float64)
    logits -= logits.max(1, keepdims=True)
    return logits - numpy.log(numpy.exp(logits).sum(1, keepdims=True))


def _perplexity(told: Any, tokens: list[int]) -> float:
    return math.exp(-told[numpy.arange(len(told)), tokens[1:]].mean())


def _compared(logits: Any, file: Path, tokens: list[int]) -> dict[str, Any]:
    here = _log_softmax(logits)
    with numpy.load(file) as stored:
        there, tool = stored["predictions"].astype(numpy.float64), str(stored["tool"])
    return {
        "tool": tool,
        "perplexity_there": _perplexity(there, tokens),
        "perplexity_here": _perplexity(here, tokens),
        "divergence": float((numpy.exp(there) * (there - here)).sum(1).mean()),
    }


def _record(name: str, row: dict[str, Any], device: str) -> None:
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    arguments = ["benchmarks/quality/readers.py", "here", "FILE", f"{name}=PATH"]
    arguments += [] if device == "cpu" else ["--device", device]
    command = "python3 -m uv run python " + shlex.join(arguments)
    found[name] = row | {"command": command, "date": datetime.date.today().isoformat()}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    print(name, json.dumps(row), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
