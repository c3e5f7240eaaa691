"""A model whose next token follows from the last one, by a table."""

import dataclasses

import pytest
import torch
from aphrodite_engine.execution.assembly import Blueprint, KVMemory
from aphrodite_engine.execution.limits import Limits
from aphrodite_engine.execution.memory import allocate_caches
from aphrodite_engine.execution.step_executor import StepExecutor
from aphrodite_engine.kv import KVSpec, group_layers
from aphrodite_engine.plan import Plan, RowStart, RowWork
from aphrodite_engine.sampling.catalog import stages_from
from aphrodite_engine.sampling.params import SamplingParams
from aphrodite_engine.sampling.sampler import Sampler
from aphrodite_kernels.backends import reference

VOCABULARY = 50
POISON = 49
"""The token behind which logits are not finite."""
GREEDY = stages_from({"temperature": 0.0})


class TableModel:
    """Logits of a position are the table's row of its token."""

    softcap = None

    def __init__(self):
        generator = torch.Generator().manual_seed(5)
        self.table = torch.randn(VOCABULARY, VOCABULARY, generator=generator)
        for token in range(POISON):
            self.table[token, (5 * token + 3) % POISON] += 10  # one long cycle
        self.table[POISON] = torch.nan
        self.fails = False

    def forward(self, input):
        if self.fails:
            raise RuntimeError("out of luck")
        tokens = input.tokens if input.wanted is None else input.tokens[input.wanted]
        return self.table[tokens.long()]

    def logits(self, hidden):
        return hidden.clone()

    def follow(self, token: int, count: int) -> list[int]:
        """The greedy continuation."""
        found = []
        for _ in range(count):
            token = int(self.table[token].argmax())
            found.append(token)
        return found


@pytest.fixture
def model():
    return TableModel()


def call_again(function, tokens, requests, outputs):
    """What a device's capture does, as far as it can be seen: the same work at fixed places."""
    result = function()

    class Again:
        def replay(self, *counts):
            assert counts == (tokens, requests, outputs)
            result.copy_(function())

    return Again(), result


@pytest.fixture(params=["host", "device", "captured"])
def executor(request, model):
    """Of a CPU; and of a device of its own, with and without captured steps."""
    backend = reference.create(torch.device("cpu"), threads=None, dtype=None)
    if request.param == "captured":
        backend = dataclasses.replace(backend, capture=call_again, elastic=False)
    groups = group_layers([KVSpec(1, 4)])
    caches = allocate_caches(groups, 40, 4, torch.float32, torch.device("cpu"))
    memory = KVMemory(groups=groups, caches=caches)
    limits = Limits(rows=4, tokens=16, positions=32, block_size=4)
    blueprint = Blueprint(
        model=model, vocab_size=VOCABULARY, backend=backend, memory=memory, limits=limits
    )
    parts = blueprint.on_the_host() if request.param == "host" else blueprint.on_a_device()
    return StepExecutor(*parts, Sampler(backend))


@pytest.fixture
def run(executor):
    """One plan, to its end."""
    return lambda plan: executor.launch(plan).wait()


def start(row: int, tokens: list[int], **params) -> RowStart:
    chosen = SamplingParams(stages=params.pop("stages", GREEDY), **params)
    return RowStart(
        row=row, request=f"r{row}", choice=0, tokens=tokens, prompt_length=len(tokens),
        params=chosen, seed=row, stop_tokens=[],
    )  # fmt: skip


def work(row: int, first: int, count: int = 1, *, samples: bool = True, **rest) -> RowWork:
    return RowWork(row=row, start=first, count=count, samples=samples, **rest)


def plan(*items: RowWork, started=(), released=(), blocks=()) -> Plan:
    return Plan(
        step=0, released=list(released), started=list(started), blocks=list(blocks),
        work=list(items),
    )  # fmt: skip


@pytest.fixture
def make():
    """Records of a plan."""

    class Make:
        pass

    made = Make()
    made.start, made.work, made.plan = start, work, plan
    made.vocabulary, made.poison = VOCABULARY, POISON
    return made
