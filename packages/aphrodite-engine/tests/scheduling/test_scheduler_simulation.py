"""Any traffic, on pools as small as they can be: everyone gets what they would get alone."""

import random

import pytest
from aphrodite_engine.errors import ContextLengthError
from hypothesis import given, settings
from hypothesis import strategies as st

requests = st.fixed_dictionaries(
    {
        "at": st.integers(0, 30),
        "shared": st.integers(0, 20),
        "own": st.integers(0, 14),
        "priority": st.integers(0, 2),
        "n": st.sampled_from([1, 1, 1, 2, 3]),
        "max_tokens": st.one_of(st.none(), st.integers(0, 20)),
        "min_tokens": st.integers(0, 3),
        "ignore_eos": st.booleans(),
        "stop_token_ids": st.sampled_from([(), (3,), (5, 6)]),
        "prompt_logprobs": st.sampled_from([None, None, 0]),
        "abort": st.one_of(st.none(), st.none(), st.integers(0, 25)),
        "fail": st.sampled_from([None, None, None, None, 3]),
    }
)
worlds = st.fixed_dictionaries(
    {
        "windows": st.sampled_from([(None,), (None, 5), (6,), (8, None, 8), (1, None)]),
        "num_blocks": st.integers(8, 32),
        "block_size": st.sampled_from([1, 2, 4]),
        "max_model_len": st.integers(20, 48),
        "max_num_seqs": st.integers(1, 5),
        "max_num_batched_tokens": st.integers(5, 24),
        "policy": st.sampled_from(["fcfs", "priority"]),
        "enable_prefix_caching": st.booleans(),
    }
)
NOT_PARAMS = ("at", "shared", "own", "priority", "abort", "fail")


def prompt_of(number, request):
    shared = [1 + position % 7 for position in range(request["shared"])]
    return shared + [8 + (number + position) % 3 for position in range(request["own"])] or [2]


def meddle(world, traffic, prompts, step):
    """What arrives, leaves and fails at a step."""
    for number, request in enumerate(traffic):
        name = str(number)
        since = step - request["at"]
        if since == 0:
            params = {key: value for key, value in request.items() if key not in NOT_PARAMS}
            try:
                world.add(name, prompts[number], priority=request["priority"], **params)
            except ContextLengthError as error:
                assert "maximum context length is" in str(error)
        if request["abort"] is not None and since == request["abort"]:
            # Of several completions the second alone, or all of them.
            choice = 1 if request["n"] == 3 else None
            world.engine.abort(name, choice)
        if request["fail"] is not None and since == request["fail"]:
            world.device.fail.add(name)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(worlds, st.lists(requests, min_size=1, max_size=9))
def test_everyone_gets_what_they_would_get_alone(world, numbers, traffic):
    engine = world(**numbers)
    prompts = [prompt_of(number, request) for number, request in enumerate(traffic)]
    for step in range(60):
        meddle(engine, traffic, prompts, step)
        engine.step()
    engine.run()
    context = engine.scheduler.context
    for (name, choice), tokens in engine.tokens.items():
        request = traffic[int(name)]
        params = {key: value for key, value in request.items() if key not in NOT_PARAMS}
        expected, finish = engine.alone(prompts[int(name)], choice, context, **params)
        ended = engine.finished.get((name, choice), ("abort", None))
        if ended[0] in ("abort", "error"):
            assert tokens == expected[: len(tokens)]
        else:
            assert (tokens, ended) == (expected, finish)
            scored = choice == 0 and request["prompt_logprobs"] is not None
            assert engine.scores[name, choice] == (prompts[int(name)][1:] if scored else [])
        if ended[0] == "abort":
            assert request["abort"] is not None
        if ended[0] == "error":
            assert request["fail"] is not None


@pytest.mark.parametrize("policy", ["fcfs", "priority"])
@pytest.mark.parametrize("windows", [(None,), (None, 6, 6)])
def test_crowd_on_a_tiny_pool(world, windows, policy):
    draw = random.Random(11)
    engine = world(
        windows,
        num_blocks=12 + 12 * len(windows),
        max_num_seqs=12,
        max_num_batched_tokens=16,
        max_model_len=48,
        policy=policy,
    )
    prompts, params = {}, {}
    for number in range(64):
        name = str(number)
        own = [1 + draw.randrange(3) for _ in range(draw.randrange(1, 12))]
        prompts[name] = [1, 2, 3, 4, 5, 6, 7, 8, *own]
        params[name] = {"max_tokens": draw.randrange(1, 24), "ignore_eos": True, "seed": number}
        engine.add(name, prompts[name], priority=draw.randrange(3), **params[name])
    aborted = {str(number) for number in draw.sample(range(64), 8)}
    for name in sorted(aborted):
        for _ in range(3):
            engine.step()
        engine.engine.abort(name)
    engine.run()
    assert engine.engine.stats.preemptions > 10
    assert engine.engine.stats.prefix_hits > 0
    assert {name for name, _ in engine.finished} >= set(prompts) - aborted
    for name, choice in engine.finished:
        tokens, finish = engine.alone(prompts[name], choice, **params[name])
        assert (engine.tokens[name, choice], engine.finished[name, choice]) == (tokens, finish)
