"""How well a model predicts a text."""

import math
from functools import partial
from pathlib import Path

import torch
from aphrodite_kernels.backend import Backend
from torch import Tensor

from aphrodite_engine.loading.model import OpenModel, load_model, open_model
from aphrodite_engine.model import Model, capped
from aphrodite_engine.quantizing.job import Progress
from aphrodite_engine.quantizing.report import Perplexity
from aphrodite_engine.quantizing.sequences import input_of

_ROWS = 256
"""Logits of that many positions exist at once."""


@torch.inference_mode()
def surprise(model: Model, source: OpenModel, backend: Backend, sequence: Tensor) -> float:
    """Sum of -log p over the tokens [L] behind the first, in nats."""
    hidden = model.forward(input_of(sequence[None], source.config, backend))[:-1]
    wanted = sequence[1:].to(backend.device)
    total = 0.0
    for start in range(0, len(hidden), _ROWS):
        part = slice(start, start + _ROWS)
        logits = capped(model.logits(hidden[part]).float(), model)
        total -= float(logits.log_softmax(1).gather(1, wanted[part, None]).sum())
    return total


def perplexity_of(
    path: Path, backend: Backend, sequences: Tensor, progress: Progress, label: str
) -> float:
    """exp of the mean surprise over texts [B, L], each without what came before it.

    Raises:
        ModelError, QuantError: the model cannot be loaded.
    """
    source = open_model(path)
    count, length = sequences.shape
    loaded = load_model(source, backend, length, lambda read, total: None)
    total = 0.0
    for number, sequence in enumerate(sequences):
        progress(label, number, count)
        total += surprise(loaded.model, source, backend, sequence)
    progress(label, count, count)
    return math.exp(total / (count * (length - 1)))


def compare(
    original: Path, result: Path, backend: Backend, sequences: Tensor, progress: Progress
) -> Perplexity:
    """Of both models, on the same texts [B, L].

    Raises:
        ModelError, QuantError: a model cannot be loaded.
    """
    measure = partial(perplexity_of, backend=backend, sequences=sequences, progress=progress)
    return Perplexity(
        before=measure(original, label="measuring the original"),
        after=measure(result, label="measuring the result"),
        tokens=sequences.shape[0] * (sequences.shape[1] - 1),
    )
