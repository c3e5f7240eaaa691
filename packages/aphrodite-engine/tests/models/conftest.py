"""Tiny random checkpoints, and a model run through paged caches step by step."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from aphrodite_engine.execution.assembly import Blueprint, KVMemory
from aphrodite_engine.execution.limits import Limits
from aphrodite_engine.execution.memory import allocate_caches
from aphrodite_engine.kv import group_layers
from aphrodite_engine.loading.model import load_model, open_model
from aphrodite_engine.plan import BlockUpdate, Plan, RowStart, RowWork
from aphrodite_engine.sampling.params import SamplingParams
from aphrodite_kernels.backend import Backend
from aphrodite_kernels.backends import cpu, reference
from aphrodite_kernels.backends.cpu.tiled import Tiled
from aphrodite_kernels.layouts import PackedWeight
from torch import Tensor
from torch.nn import Module

BLOCK_SIZE = 4
ROWS = 4
POSITIONS = 64

Chunk = tuple[int, int, int]
"""Row, first position, count."""


class Decoder:
    """A model over paged caches, one step at a time, without a sampler."""

    def __init__(
        self, path: Path, backend: Backend, *, eager: bool = False, quantization: str | None = None
    ) -> None:
        source = open_model(path).quantized(quantization)
        self.loaded = load_model(source, backend, POSITIONS, lambda read, total: None)
        groups = group_layers(source.config.kv_specs)
        limits = Limits(rows=ROWS, tokens=48, positions=POSITIONS, block_size=BLOCK_SIZE)
        blocks = len(groups) * ROWS * limits.blocks + 1
        caches = allocate_caches(groups, blocks, BLOCK_SIZE, torch.float32, backend.device)
        memory = KVMemory(groups=groups, caches=caches)
        self._groups = groups
        self._blocks_per_row = limits.blocks
        blueprint = Blueprint(
            model=self.loaded.model, vocab_size=source.config.vocab_size, backend=backend,
            memory=memory, limits=limits, eager=eager,
        )  # fmt: skip
        parts = blueprint.on_the_host() if backend.elastic else blueprint.on_a_device()
        self._state, self._inputs, self._programs = parts

    def start(self, row: int, tokens: Sequence[int]) -> None:
        """Seat a request and give it all its blocks, in scrambled order."""
        scrambled = np.random.default_rng(row).permutation(self._blocks_per_row)
        updates = []
        for group in range(len(self._groups)):
            first = 1 + (group * ROWS + row) * self._blocks_per_row
            blocks = [first + int(index) for index in scrambled]
            updates.append(BlockUpdate(row=row, group=group, start=0, blocks=blocks))
        start = RowStart(
            row=row, request="r", choice=0, tokens=list(tokens), prompt_length=len(tokens),
            params=SamplingParams(), seed=0, stop_tokens=[],
        )  # fmt: skip
        self._apply([start], updates)

    def forget_window(self, row: int, position: int) -> None:
        """Take away the blocks that no query from `position` on may see."""
        for index, group in enumerate(self._groups):
            if group.spec.window is not None:
                gone = max(0, position - group.spec.window + 1) // BLOCK_SIZE
                update = BlockUpdate(row=row, group=index, start=0, blocks=[0] * gone)
                self._apply([], [update])

    def last(self, *chunks: Chunk) -> torch.Tensor:
        """Logits [chunks, V] of the last position of every chunk, for which alone is asked."""
        work = [RowWork(row=r, start=s, count=c, samples=True) for r, s, c in chunks]
        step = self._inputs.fill(work)
        self._programs.forward(step, every=False)
        return self._programs.logits(step, step.outputs).clone()

    def _apply(self, started: list[RowStart], blocks: list[BlockUpdate]) -> None:
        self._state.apply(Plan(step=0, released=[], started=started, blocks=blocks, work=[]))

    def step(self, *chunks: Chunk) -> list[torch.Tensor]:
        """Logits [count, V] of every position of every chunk."""
        work = [RowWork(row=r, start=s, count=c, samples=True) for r, s, c in chunks]
        step = self._inputs.fill(work)
        self._programs.forward(step, every=True)
        slices = []
        for first in range(0, step.tokens, self._inputs.outputs):
            rows = np.arange(first, min(first + self._inputs.outputs, step.tokens))
            self._inputs.choose(rows)
            slices.append(self._programs.logits(step, len(rows)).clone())
        logits = torch.cat(slices)
        return list(logits.split([count for _, _, count in chunks]))


@pytest.fixture(scope="session")
def backend() -> Backend:
    return reference.create(torch.device("cpu"), threads=None, dtype=None)


@pytest.fixture(scope="session")
def native() -> Backend:
    """The compiled backend."""
    obstacle = cpu.obstacle()
    if obstacle is not None:
        pytest.skip(f"the compiled kernels are absent: {obstacle}")
    return cpu.create(torch.device("cpu"), threads=2, dtype=None)


def _in_eight_bits(x: torch.Tensor) -> torch.Tensor:
    """Activations of whole numbers up to 127, times a scale for each 32."""
    blocks = x.unflatten(-1, (-1, 32))
    peak = blocks.abs().amax(-1, keepdim=True)
    return ((blocks * (127 / peak)).round() * (peak / 127)).flatten(-2)


@pytest.fixture
def in_eight_bits(native: Backend) -> Callable[[Module, Mapping[str, PackedWeight]], None]:
    """Round what modules take, of which the weights are given, if they are tiles of integers."""

    def apply(model: Module, weights: Mapping[str, PackedWeight]) -> None:
        for name, weight in weights.items():
            if isinstance(native.prepare(weight), Tiled):
                model.get_submodule(name).register_forward_pre_hook(
                    lambda _, inputs: (_in_eight_bits(inputs[0]),)
                )

    return apply


@pytest.fixture
def decoder(backend: Backend) -> Callable[[Path], Decoder]:
    return lambda path: Decoder(path, backend)


@pytest.fixture
def decoder_on() -> Callable[..., Decoder]:
    """A decoder on a given backend: (path, backend, eager=…, quantization=…)."""
    return Decoder


@pytest.fixture
def both_predict(backend: Backend, native: Backend) -> Callable[[Path, list[int], Tensor], None]:
    """Asserts that a checkpoint has logits [L, V]: by the reference nearly, compiled about so."""

    def check(path: Path, tokens: list[int], expected: Tensor) -> None:
        for each in (backend, native):
            made = Decoder(path, each)
            made.start(0, tokens)
            found = made.step((0, 0, len(tokens)))[0]
            limit = 1e-3 if each is backend else 2e-2
            assert (found - expected).norm() <= limit * expected.norm()

    return check


@pytest.fixture
def make_checkpoint(tmp_path: Path):
    """Save a random model of a transformers configuration; also the model."""

    def make(config):
        from transformers import AutoModelForCausalLM

        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                centre = 1.0 if "norm" in name and config.model_type != "gemma3_text" else 0.0
                parameter.normal_(centre, 0.08)
        model.save_pretrained(tmp_path)
        assert json.loads((tmp_path / "config.json").read_text())["model_type"]
        return tmp_path, model

    return make
