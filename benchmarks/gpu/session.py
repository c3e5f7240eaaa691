"""The offline `LLM` over a model that lies in memory only, with a clock around its engine."""

import gc
import itertools
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from aphrodite_engine.build import engine_of
from aphrodite_engine.config import EngineConfig
from aphrodite_engine.engine import Engine
from aphrodite_engine.info import ModelInfo
from aphrodite_engine.llm import LLM
from aphrodite_engine.loading.model import OpenModel
from aphrodite_engine.loading.resolve import named_dtype
from aphrodite_engine.loading.text import TextModel
from aphrodite_engine.outputs import RequestOutput
from aphrodite_engine.profile import ProfiledScheduler
from aphrodite_engine.request import EngineRequest
from aphrodite_engine.text.chat_template import ChatTemplate
from aphrodite_engine.text.hf_tokenizer import directory_tokenizer
from aphrodite_engine.text.tokenizer import Tokenizer
from aphrodite_engine.text.vocabulary import BYTE_ALPHABET
from aphrodite_kernels.backend import Backend, backend_for

OFTEN = 50
"""Steps of one size that make a line of the profile."""


class OverBudgetError(Exception):
    """A scenario took longer than it may."""


@dataclass(slots=True)
class Clock:
    """Implements what `LLM` needs of an engine; of every step it keeps the end and the tokens."""

    engine: Engine
    deadline: float = float("inf")
    """time.perf_counter() after which a step is an OverBudgetError."""
    ends: list[float] = field(default_factory=list[float])
    tokens: list[int] = field(default_factory=list[int])

    def add(self, request: EngineRequest) -> None:
        self.engine.add(request)

    def abort(self, request_id: str, choice: int | None = None) -> None:
        self.engine.abort(request_id, choice)

    def rewind(self, request_id: str, choice: int, kept: int, banned: Sequence[int]) -> None:
        self.engine.rewind(request_id, choice, kept, banned)

    def step(self) -> list[RequestOutput]:
        outputs = self.engine.step()
        now = time.perf_counter()
        self.ends.append(now)
        self.tokens.append(sum(len(output.tokens) for output in outputs))
        if now > self.deadline:
            raise OverBudgetError(f"out of time after {sum(self.tokens)} tokens")
        return outputs

    def close(self) -> None:
        self.engine.close()

    def reset(self) -> None:
        """Finish what was abandoned, and forget what was measured."""
        while self.engine.unfinished:
            self.engine.step()
        self.ends, self.tokens = [], []


class Session(LLM):
    """An `LLM` whose engine was put together here."""

    def __init__(self, engine: Engine, info: ModelInfo, tokenizer: Tokenizer | None = None) -> None:
        self.clock = Clock(engine)
        tokenizer = tokenizer or tokenizer_of(info.vocab_size)
        text = TextModel(Path(info.path), tokenizer, ChatTemplate(None, tokenizer))
        self._hold(self.clock, info, text, {})  # type: ignore[arg-type]

    @property
    def profile(self) -> str:
        """Host milliseconds per step by phase, of batches seen often; empty: none were kept."""
        scheduler = self.clock.engine._scheduler
        if not isinstance(scheduler, ProfiledScheduler):
            return ""
        head, *lines = scheduler.profile.table().splitlines()
        return "\n".join([head, *(line for line in lines if int(line.split()[2]) >= OFTEN)])

    def close(self) -> None:
        """Free all memory of the device, that of recorded programs too."""
        self.clock.reset()
        super().close()
        self.clock = self._engine = None  # type: ignore[assignment]
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def open_session(
    source: OpenModel, device: torch.device, backend: Backend | None = None, **options: Any
) -> Session:
    """An engine ready for requests, every program recorded; `backend` None: the device's own."""
    config = EngineConfig(model="random", device=str(device), seed=0, **options)
    backend = backend or backend_for(device, dtype=named_dtype(config.dtype))
    session = Session(*engine_of(source, backend, config, [], _say_news))
    while session.clock.engine.prepare():
        pass
    return session


def _say_news(line: str) -> None:
    """What the engine says beside its budget and its progress: that it has less than planned."""
    if "\n" not in line and not line.startswith("loading weights"):
        print(line, flush=True)


@cache
def tokenizer_of(vocabulary: int) -> Tokenizer:
    """A byte-level tokenizer of so many tokens."""
    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer(Path(folder), vocabulary)
        return directory_tokenizer(Path(folder))


def write_tokenizer(folder: Path, vocabulary: int) -> None:
    """A tokenizer.json whose first 256 tokens are the bytes, without merges."""
    fillers = (f"token{index}" for index in itertools.count())
    pieces = itertools.islice(itertools.chain(sorted(BYTE_ALPHABET), fillers), vocabulary)
    description = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True},
        "model": {
            "type": "BPE",
            "vocab": {piece: index for index, piece in enumerate(pieces)},
            "merges": [],
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(description), encoding="utf-8")


def random_prompts(count: int, lengths: Sequence[int], vocabulary: int, seed: int = 0) -> Any:
    """`count` prompts, as long as `lengths` say in turn."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randint(vocabulary, (lengths[index % len(lengths)],), generator=generator).tolist()
        for index in range(count)
    ]
