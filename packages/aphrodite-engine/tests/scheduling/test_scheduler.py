"""One behaviour of the scheduler at a time."""

import pytest
from aphrodite_engine.errors import ConfigError, ContextLengthError, RequestError
from aphrodite_engine.sampling.stages.logit_bias import LogitBias

ENDLESS = {"ignore_eos": True, "min_tokens": 100}


def expect(engine, name, prompt, choice=0, **params):
    assert (engine.tokens[name, choice], engine.finished[name, choice]) == engine.alone(
        prompt, choice, engine.scheduler.context, **params
    )


def test_prompts_are_computed_in_chunks_beside_decoding(world):
    engine = world(max_num_batched_tokens=8)
    engine.add("short", [1, 2], max_tokens=12, **ENDLESS)
    engine.step()
    engine.add("long", list(range(1, 11)) * 2, max_tokens=4, **ENDLESS)
    engine.run()
    plans = [plan for plan in engine.device.plans if plan.work]
    mixed = [sorted(work.count for work in plan.work) for plan in plans if len(plan.work) == 2]
    assert [1, 7] in mixed
    expect(engine, "short", [1, 2], max_tokens=12, **ENDLESS)
    expect(engine, "long", list(range(1, 11)) * 2, max_tokens=4, **ENDLESS)


def test_full_house_starves_nobody(world):
    """As many rows as tokens: the prompt still gets a token per step, and so does everyone else."""
    engine = world(max_num_seqs=4, max_num_batched_tokens=4)
    for number in range(3):
        engine.add(str(number), [1 + number], max_tokens=40, **ENDLESS)
    engine.step()
    engine.step()
    engine.add("prompt", [5] * 20, max_tokens=2, **ENDLESS)
    for _ in range(26):
        engine.step()
    assert ("prompt", 0) in engine.finished
    assert all(len(engine.tokens[str(number), 0]) >= 24 for number in range(3))


def test_second_request_shares_the_blocks_of_the_first(world):
    engine, prompt = world(), list(range(1, 11))
    engine.add("a", prompt, max_tokens=3)
    engine.run()
    engine.add("b", [*prompt, 3], max_tokens=3)
    engine.run()
    assert engine.news["a", 0].cached_tokens == 0
    assert engine.news["b", 0].cached_tokens == 8
    stats = engine.engine.stats
    assert (stats.prefix_queries, stats.prefix_hits, stats.prompt_tokens) == (21, 8, 13)
    expect(engine, "b", [*prompt, 3], max_tokens=3)


def test_generated_blocks_are_shared_too(world):
    engine = world()
    engine.add("a", [1, 2, 3], max_tokens=10, **ENDLESS)
    engine.run()
    turn = [1, 2, 3, *engine.tokens["a", 0], 9]
    engine.add("b", turn, max_tokens=2)
    engine.run()
    assert engine.news["b", 0].cached_tokens == 12


def test_prefix_reuse_can_be_switched_off(world):
    engine = world(enable_prefix_caching=False)
    for name in "ab":
        engine.add(name, list(range(1, 11)), max_tokens=3)
        engine.run()
    assert engine.news["b", 0].cached_tokens == 0
    assert engine.engine.stats.prefix_queries == engine.engine.stats.prefix_hits == 0


@pytest.mark.parametrize("windows", [(None,), (None, 6), (5,)])
@pytest.mark.parametrize("enable", [True, False])
def test_completions_of_a_prompt_share_its_blocks(world, windows, enable):
    engine = world(windows, enable_prefix_caching=enable, max_num_seqs=8)
    prompt = list(range(1, 12))
    engine.add("a", prompt, n=4, max_tokens=6)
    engine.run()
    assert engine.engine.stats.prompt_tokens == 11 + 3 * 3
    for choice in range(4):
        expect(engine, "a", prompt, choice, n=4, max_tokens=6)
    assert len({tuple(engine.tokens["a", choice]) for choice in range(4)}) > 1


def test_completions_of_a_prompt_run_together_once_it_is_computed(world):
    engine = world()
    engine.add("a", [1, 2, 3, 4, 5], n=4, max_tokens=9, **ENDLESS)
    engine.step()
    engine.step()
    assert engine.engine.stats.running == 1
    engine.step()
    assert engine.engine.stats.running == 4
    engine.run()


def test_completions_go_on_when_the_first_dies(world):
    engine = world(max_num_batched_tokens=4)
    engine.add("a", list(range(1, 12)), n=3, max_tokens=6)
    engine.device.fail.add("a")
    engine.run()
    assert engine.finished["a", 0] == ("error", None)
    assert engine.news["a", 0].error == "the device dislikes this request"
    for choice in (1, 2):
        expect(engine, "a", list(range(1, 12)), choice, n=3, max_tokens=6)


def test_one_completion_can_be_aborted(world):
    engine = world()
    engine.add("a", [1, 2, 3, 4, 5], n=3, max_tokens=6)
    engine.engine.abort("a", 0)
    engine.engine.abort("a", 2)
    engine.engine.abort("nobody")
    engine.run()
    assert list(engine.finished) == [("a", 1)]


def test_preempted_requests_lose_time_only(world):
    engine = world(num_blocks=14, block_size=2, max_model_len=24, max_num_seqs=3)
    prompts = {str(number): [1 + number, 2, 3] for number in range(3)}
    for name, prompt in prompts.items():
        engine.add(name, prompt, max_tokens=14, **ENDLESS)
    engine.run()
    assert engine.engine.stats.preemptions > 0
    # The last comer is the victim: they end in order.
    assert [name for name, _ in engine.order] == ["0", "1", "2"]
    for name, prompt in prompts.items():
        expect(engine, name, prompt, max_tokens=14, **ENDLESS)


def test_lower_priority_value_goes_first_and_stays(world):
    engine = world(num_blocks=14, block_size=2, max_num_seqs=2, policy="priority")
    engine.add("late", [1, 2], priority=1, arrival=0.0, max_tokens=14, **ENDLESS)
    engine.add("later", [1, 2], priority=1, arrival=1.0, max_tokens=20, **ENDLESS)
    engine.add("early", [3, 4], priority=0, arrival=2.0, max_tokens=20, **ENDLESS)
    engine.run()
    assert engine.engine.stats.preemptions > 0
    assert [name for name, _ in engine.order] == ["early", "late", "later"]


def test_order_of_arrival_holds_under_fcfs(world):
    engine = world(max_num_seqs=1)
    for number, name in enumerate("abc"):
        engine.add(name, [1 + number], priority=3 - number, max_tokens=3, **ENDLESS)
    engine.run()
    assert [name for name, _ in engine.order] == ["a", "b", "c"]


def test_what_left_the_window_is_free(world):
    engine = world((4,), num_blocks=8, max_model_len=200, max_num_batched_tokens=8)
    engine.add("a", list(range(1, 51)), max_tokens=100, **ENDLESS)
    lowest = 7
    while engine.engine.unfinished:
        engine.step()
        lowest = min(lowest, engine.engine.stats.kv_blocks_free)
    assert lowest >= 7 - 4
    expect(engine, "a", list(range(1, 51)), max_tokens=100, **ENDLESS)


def finds(engine, prompt, **params):
    """The first token that this prompt gives, to make it a stop."""
    return engine.alone(prompt, 0, max_tokens=1, **params)[0][0]


def test_stop_token_ends_the_completion_and_is_part_of_it(world):
    engine, prompt = world(), [4, 4, 4]
    token = finds(engine, prompt)
    assert token != 0
    engine.add("a", prompt, max_tokens=9, stop_token_ids=(token,))
    engine.run()
    assert (engine.tokens["a", 0], engine.finished["a", 0]) == ([token], ("stop", token))


def test_end_of_text_has_no_stop_reason(world):
    engine = world(end_tokens=frozenset(range(12)))
    engine.add("a", [4, 4, 4], max_tokens=9, stop_token_ids=tuple(range(12)))
    engine.add("b", [4, 4, 4], max_tokens=9, ignore_eos=True)
    engine.add("c", [4, 4, 4], max_tokens=9, min_tokens=3)
    engine.run()
    assert [len(engine.tokens[name, 0]) for name in "abc"] == [1, 9, 4]
    assert [engine.finished[name, 0] for name in "abc"] == [
        ("stop", None),
        ("length", None),
        ("stop", None),
    ]


def test_nothing_is_computed_past_a_known_limit(world):
    engine = world()
    engine.add("a", [1, 2, 3], max_tokens=5, **ENDLESS)
    engine.run()
    assert sum(plan.tokens for plan in engine.device.plans) == 3 + 4


def test_tokens_past_a_stop_are_neither_told_nor_shared(world):
    engine, prompt = world(), [4, 4, 4]
    token = finds(engine, prompt)
    engine.add("a", prompt, max_tokens=30, stop_token_ids=(token,))
    engine.run()
    # The device went on to position 3, which fills a block; nobody finds it.
    assert sum(plan.tokens for plan in engine.device.plans) == 4
    engine.add("b", [*prompt, token, 1], max_tokens=1)
    engine.run()
    assert engine.news["b", 0].cached_tokens == 0


@pytest.mark.parametrize("max_tokens", [0, 2])
def test_prompt_is_scored_once_and_never_from_the_cache(world, max_tokens):
    engine, prompt = world(max_num_batched_tokens=5), list(range(1, 12))
    for name in "ab":
        engine.add(name, prompt, max_tokens=max_tokens, prompt_logprobs=1, **ENDLESS)
    outputs = engine.run()
    for name in "ab":
        mine = [output for output in outputs if output.id == name]
        assert [score.token for score in mine[0].prompt_logprobs] == prompt[1:]
        assert not any(output.prompt_logprobs for output in mine[1:])
        assert len(engine.tokens[name, 0]) == max_tokens
        assert engine.finished[name, 0] == ("length", None)
        assert engine.news[name, 0].cached_tokens == 0
    assert engine.engine.stats.prompt_tokens == 22


@pytest.mark.parametrize("spare", [2, 3, 4, 5])
def test_prompt_that_was_preempted_is_scored_without_a_gap(world, spare):
    engine, prompt = world(num_blocks=22 + spare, block_size=1, max_num_batched_tokens=4), [3] * 20
    engine.add("first", [1], max_tokens=16, **ENDLESS)
    engine.add("scored", prompt, max_tokens=1, prompt_logprobs=0, ignore_eos=True)
    outputs = engine.run()
    assert engine.engine.stats.preemptions == 1
    scores = [score.logprob for output in outputs for score in output.prompt_logprobs]
    assert scores == [-float(position) for position in range(1, 20)]


def test_only_the_first_completion_scores_the_prompt(world):
    engine, prompt = world(), list(range(1, 12))
    engine.add("a", prompt, n=3, max_tokens=2, prompt_logprobs=1, **ENDLESS)
    outputs = engine.run()
    assert [o.choice for o in outputs if o.prompt_logprobs] == [0]
    assert outputs[0].prompt_logprobs


def test_broken_row_ends_one_request_only(world):
    engine = world()
    engine.add("good", [1, 2, 3], max_tokens=6)
    engine.add("bad", [1, 2, 4], max_tokens=6)
    engine.device.fail.add("bad")
    engine.run()
    assert engine.finished["bad", 0][0] == "error"
    expect(engine, "good", [1, 2, 3], max_tokens=6)


def test_abort_frees_everything_at_once(world):
    engine = world()
    for name in "abcdef":
        engine.add(name, [1, 2, 3, 4, 5, 6], n=2, max_tokens=30, **ENDLESS)
    for _ in range(5):
        engine.step()
    for name in "abcdef":
        engine.engine.abort(name)
    assert not engine.scheduler.unfinished
    assert engine.engine.stats.kv_blocks_free == engine.engine.stats.kv_blocks
    engine.run()
    assert not engine.finished
    engine.add("a", [1, 2, 3], max_tokens=4)
    engine.run()
    expect(engine, "a", [1, 2, 3], max_tokens=4)


def test_seeds_are_drawn_once_per_request(world):
    engines = [world(seed=5), world(seed=5), world(seed=6)]
    for engine in engines:
        engine.add("a", [1, 2, 3, 4, 5], n=2, seed=None, max_tokens=3, **ENDLESS)
        engine.add("b", [1], seed=-1, max_tokens=3)
        engine.seeds = []
        while engine.engine.unfinished:
            engine.step()
            plan = engine.device.plans[-1]
            engine.seeds += [start.seed for start in plan.started if start.choice == 0]
    assert engines[0].tokens == engines[1].tokens
    assert engines[0].seeds[0] == engines[1].seeds[0] != engines[2].seeds[0]
    assert engines[0].seeds[1] == 2**64 - 1


def test_too_long_says_how_long_it_may_be(world):
    engine = world(max_model_len=32)
    with pytest.raises(
        ContextLengthError,
        match=r"maximum context length is 32 tokens, but .* 30 in the prompt and 3 to generate; ",
    ) as error:
        engine.add("a", [1] * 30, max_tokens=3)
    assert error.value.field == "max_tokens"
    with pytest.raises(ContextLengthError, match="32 in the prompt and at least 1") as error:
        engine.add("a", [1] * 32)
    assert error.value.field == "prompt"
    engine.add("a", [1] * 32, max_tokens=0)
    engine.add("b", [1] * 30)
    engine.run()
    assert engine.finished["a", 0] == ("length", None)


def test_too_long_for_the_memory_is_refused_at_once(world):
    engine = world(num_blocks=6, max_model_len=4096)
    assert engine.scheduler.context == 20
    with pytest.raises(ContextLengthError, match=r"is 20 tokens \(4096 by its length, less by"):
        engine.add("a", [1] * 15, max_tokens=6)
    engine.add("a", [1] * 15, max_tokens=5, **ENDLESS)
    engine.run()
    assert len(engine.tokens["a", 0]) == 5


def test_requests_that_make_no_sense_are_refused(world):
    engine = world()
    with pytest.raises(RequestError, match="no tokens") as error:
        engine.add("a", [])
    assert error.value.field == "prompt"
    engine.add("a", [1])
    with pytest.raises(RequestError, match="'a' is in use") as error:
        engine.add("a", [1])
    assert error.value.field == "id"


@pytest.mark.parametrize(
    ("prompt", "params", "field"),
    [
        ([1, 1000], {}, "prompt"),
        ([-1], {}, "prompt"),
        ([1], {"stop_token_ids": (1000,)}, "stop_token_ids"),
        ([1], {"stages": (LogitBias(logit_bias={1000: 1.0}),)}, "logit_bias"),
    ],
)
def test_tokens_outside_the_vocabulary_are_refused(world, prompt, params, field):
    engine = world()
    with pytest.raises(RequestError, match=r"token (-1|1000), but ") as error:
        engine.add("a", prompt, **params)
    assert error.value.field == field
    assert not engine.scheduler.unfinished


def test_limits_that_make_no_sense_are_refused(world):
    with pytest.raises(ConfigError, match=r"max_num_batched_tokens \(3\) is below max_num_seqs"):
        world(max_num_batched_tokens=3)
    with pytest.raises(ConfigError, match="'lottery' does not exist"):
        world(policy="lottery")
    with pytest.raises(ConfigError, match="2 KV blocks do not hold a single token"):
        world((None, 4), num_blocks=2)


def test_gauges_count_completions_that_wait_for_a_prompt(world):
    engine = world()
    engine.add("a", [1, 2, 3, 4, 5], n=3)
    assert (engine.engine.stats.running, engine.engine.stats.waiting) == (0, 3)
    engine.step()
    assert (engine.engine.stats.running, engine.engine.stats.waiting) == (1, 2)
