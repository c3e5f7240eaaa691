"""What models predict on the held-out pieces of the default text, compared; results are kept."""

import datetime
import json
import math
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from aphrodite_engine.config import EngineConfig
from aphrodite_engine.loading.model import LoadedModel, load_model, open_model
from aphrodite_engine.loading.text import load_text
from aphrodite_engine.quantizing.corpus import read_corpus
from aphrodite_engine.quantizing.sequences import input_of
from aphrodite_kernels.backend import Backend, backend_for

RESULTS = Path(__file__).resolve().parent.parent / "results" / "quality"
LENGTH = 512


@dataclass(frozen=True, slots=True)
class Predictions:
    """Of a model, on some pieces: what others are compared with."""

    loaded: LoadedModel
    backend: Backend
    pieces: torch.Tensor
    hidden: list[torch.Tensor]
    """Of each piece, [L - 1, K], before the head."""

    @classmethod
    def of(cls, path: Path, pieces: torch.Tensor, backend: Backend | None = None) -> Self:
        """What the checkpoint predicts, on the CPU as it is used there if no backend is given."""
        backend = backend or backend_for(torch.device("cpu"))
        loaded = load(path, backend)
        return cls(loaded, backend, pieces, [_hidden(loaded, backend, piece) for piece in pieces])

    @classmethod
    def of_text(cls, path: Path, pieces: int, backend: Backend | None = None) -> Self:
        """What the checkpoint predicts on the first pieces of the held-out text."""
        tokenizer = load_text(EngineConfig(model=str(path)), lambda line: None).tokenizer
        return cls.of(path, read_corpus(None, tokenizer, 1, LENGTH).held_out[:pieces], backend)

    @torch.inference_mode()
    def compare(self, other: LoadedModel) -> dict[str, float]:
        """Perplexities, mean KL(this, other) in nats, how often both find the same likeliest."""
        surprise, divergence, same, count = [0.0, 0.0], 0.0, 0, 0
        for piece, expected in zip(self.pieces, self.hidden, strict=True):
            wanted = piece[1:, None].to(expected.device)
            before = self.loaded.model.logits(expected).float().log_softmax(1)
            told = other.model.logits(_hidden(other, self.backend, piece))
            after = told.float().log_softmax(1)
            for which, one in enumerate((before, after)):
                surprise[which] -= float(one.gather(1, wanted).sum())
            divergence += float((before.exp() * (before - after)).sum())
            same += int((before.argmax(1) == after.argmax(1)).sum())
            count += len(wanted)
        return {
            "perplexity_of_the_original": math.exp(surprise[0] / count),
            "perplexity": math.exp(surprise[1] / count),
            "divergence": divergence / count,
            "same_likeliest": same / count,
            "tokens": count,
        }


def load(path: Path, backend: Backend, quantization: str | None = None) -> LoadedModel:
    source = open_model(path).quantized(quantization)
    return load_model(source, backend, LENGTH, lambda read, total: None)


def size(path: Path) -> int:
    """Bytes of the weights of a checkpoint."""
    files = [path] if path.is_file() else [*path.glob("*.safetensors"), *path.glob("*.bin")]
    return sum(file.stat().st_size for file in files)


def record(file: Path, name: str, row: Mapping[str, object], arguments: list[str]) -> None:
    """Add a row to the results, with the command that measures it again."""
    found = json.loads(file.read_text()) if file.exists() else {}
    command = "python3 -m uv run python " + shlex.join(arguments)
    found[name] = {**row, "command": command, "date": datetime.date.today().isoformat()}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found, indent=2) + "\n")
    print(name, json.dumps(row), file=sys.stderr, flush=True)


@torch.inference_mode()
def _hidden(loaded: LoadedModel, backend: Backend, piece: torch.Tensor) -> torch.Tensor:
    step = input_of(piece[None], loaded.source.config, backend)
    return loaded.model.forward(step)[:-1].clone()
