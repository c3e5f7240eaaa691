"""The tensors of a step equal what a loop over tokens makes of the same plan."""

import numpy as np
import pytest
import torch
from aphrodite_engine.execution.device_inputs import DeviceInputs
from aphrodite_engine.execution.device_rows import DeviceRows
from aphrodite_engine.execution.host_inputs import HostInputs
from aphrodite_engine.execution.host_rows import HostRows
from aphrodite_engine.execution.limits import Limits
from aphrodite_engine.execution.memory import allocate_caches
from aphrodite_engine.execution.state import BatchState
from aphrodite_engine.kv import KVSpec, group_layers
from aphrodite_engine.plan import BlockUpdate, Plan, RowStart, RowWork
from aphrodite_engine.sampling.params import SamplingParams
from aphrodite_kernels.backends import reference
from hypothesis import given, settings
from hypothesis import strategies as st

LIMITS = Limits(rows=6, tokens=64, positions=40, block_size=4)
GROUPS = group_layers([KVSpec(1, 2, 8), KVSpec(1, 2, 8), KVSpec(1, 2)])
CPU = torch.device("cpu")
CACHES = allocate_caches(GROUPS, 10, 4, torch.float32, CPU)
BACKEND = reference.create(CPU, threads=None, dtype=None)


@st.composite
def steps(draw):
    rows = draw(st.lists(st.integers(0, 5), min_size=1, unique=True))
    work = []
    for row in rows:
        start = draw(st.integers(0, 30))
        count = draw(st.integers(1, min(10, 40 - start)))
        work.append(RowWork(row=row, start=start, count=count, samples=draw(st.booleans())))
    return work


def host():
    """A CPU's state and inputs."""
    rows = HostRows(LIMITS, len(GROUPS))
    return seated(rows), HostInputs(LIMITS, GROUPS, CACHES, rows, BACKEND)


def device():
    """Those of a device of its own."""
    rows = DeviceRows(LIMITS, len(GROUPS), CPU)
    return seated(rows), DeviceInputs(LIMITS, GROUPS, CACHES, rows, BACKEND)


def seated(rows) -> BatchState:
    state = BatchState(LIMITS, 1000, rows)
    numbers = np.random.default_rng(0)
    starts, blocks = [], []
    for row in range(LIMITS.rows):
        starts.append(
            RowStart(
                row=row, request="r", choice=0, tokens=numbers.integers(0, 1000, 40).tolist(),
                prompt_length=40, params=SamplingParams(), seed=0, stop_tokens=[],
            )
        )  # fmt: skip
        for group in range(len(GROUPS)):
            table = numbers.integers(1, 500, 10).tolist()
            blocks.append(BlockUpdate(row=row, group=group, start=0, blocks=table))
    state.apply(Plan(step=0, released=[], started=starts, blocks=blocks, work=[]))
    return state


def assert_equals_a_loop(inputs, state, work):
    """Fill the buffers, and work out token by token what must be in them."""
    step = inputs.fill(work)
    found = inputs.exact(step)

    tokens, positions, slots, starts, chosen = [], [], [[] for _ in GROUPS], [0], []
    for item in work:
        for position in range(item.start, item.start + item.count):
            tokens.append(int(state.tokens[item.row, position]))
            positions.append(position)
            for group, table in enumerate(state.memory.tables):
                slots[group].append(int(table[item.row, position // 4]) * 4 + position % 4)
        starts.append(len(tokens))
        if item.samples:
            chosen.append(len(tokens) - 1)
    assert found.tokens.tolist() == tokens
    assert found.positions.tolist() == positions
    assert inputs.logit_index[: step.outputs].tolist() == chosen
    ends = [(item.row, item.start + item.count) for item in work if item.samples]
    if ends:
        assert inputs.sampled_positions(step).tolist() == [position for _, position in ends]
        sampled = torch.arange(500, 500 + len(ends), dtype=torch.int32)
        inputs.write(step, sampled)
        assert [int(state.tokens[end]) for end in ends] == sampled.tolist()
    for group, members in enumerate(GROUPS):
        meta = found.attention[members.layers[0]]
        assert meta.slots.tolist() == slots[group]
        assert meta.query_starts.tolist() == starts
        assert meta.seq_lens.tolist() == [item.start + item.count for item in work]
        assert meta.max_query == max(item.count for item in work)
        assert meta.max_seq == max(item.start + item.count for item in work)
        for request, item in enumerate(work):
            used = -(-(item.start + item.count) // 4)
            table = state.memory.tables[group][item.row, :used]
            assert meta.block_tables[request, :used].tolist() == table.tolist()


@pytest.mark.parametrize("make", [host, device])
@given(work=steps())
@settings(deadline=None, max_examples=60)
def test_a_step_equals_a_loop_over_its_tokens(make, work):
    state, inputs = make()
    inputs.fill([RowWork(row=0, start=0, count=30, samples=True)])  # something stale
    assert_equals_a_loop(inputs, state, work)


@pytest.mark.parametrize("make", [host, device])
@given(
    work=steps(),
    events=st.lists(st.sampled_from(["blocks", "leaves", "choose", "skips"]), max_size=3),
)
@settings(deadline=None, max_examples=60)
def test_steps_that_follow_one_another_equal_the_loop(make, work, events):
    """Ten decoding steps over borders of blocks, with what can happen in between."""
    state, inputs = make()
    for turn in range(10):
        assert_equals_a_loop(inputs, state, work)
        work = [
            RowWork(row=item.row, start=(item.start + item.count) % 40, count=1, samples=True)
            for item in work
        ]
        match events[turn // 3] if turn % 3 == 2 and turn // 3 < len(events) else None:
            case "blocks":
                update = BlockUpdate(row=work[0].row, group=1, start=0, blocks=[7 + turn] * 10)
                state.apply(Plan(step=0, released=[], started=[], blocks=[update], work=[]))
            case "leaves" if len(work) > 1:
                del work[0]
            case "choose":
                inputs.choose(np.array([0, 0]))
            case "skips":
                work[-1] = RowWork(row=work[-1].row, start=2, count=1, samples=False)


def test_buffers_stay_where_they_are_and_their_row_counts_differ():
    _, inputs = host()
    assert len({inputs.capacity, inputs.rows, inputs.outputs}) == 3
    whole = inputs.whole()
    step = inputs.fill([RowWork(row=1, start=3, count=2, samples=True)])
    exact = inputs.exact(step)
    assert exact.positions.data_ptr() == whole.positions.data_ptr()
    assert exact.attention[0].slots.data_ptr() == whole.attention[0].slots.data_ptr()
    assert exact.attention[2].block_tables.data_ptr() == whole.attention[2].block_tables.data_ptr()


def test_a_padded_step_computes_what_the_exact_one_does():
    _, inputs = device()
    items = [RowWork(row=row, start=3 * row + 5, count=1, samples=True) for row in (4, 0, 2, 1, 3)]
    step = inputs.fill(items)
    exact, padded = inputs.exact(step), inputs.decoding(inputs.padded(step.requests))
    assert padded.tokens.shape == (6,)
    assert torch.equal(padded.tokens[:5], exact.tokens)
    assert torch.equal(padded.positions[:5], exact.positions)
    for wide, narrow in zip(padded.attention, exact.attention, strict=True):
        assert torch.equal(wide.slots[:5], narrow.slots)
        assert torch.equal(wide.seq_lens[:5], narrow.seq_lens)
        assert torch.equal(wide.block_tables[:5], narrow.block_tables)
        assert wide.slots[5] < 4, "a row that nobody has writes outside the null block"
        assert wide.seq_lens[5] == 1
