"""Plans become tokens, in order, and what fails for one row fails for that row."""

import pytest
import torch
from aphrodite_engine.execution.runner import StreamRunner, ThreadRunner
from aphrodite_engine.sampling.stage import Stage
from aphrodite_engine.sampling.stages.temperature import Temperature


def test_a_chunked_prompt_then_tokens_that_feed_themselves(run, model, make):
    prompt = [3, 1, 4, 1, 5, 9]
    first = run(make.plan(make.work(2, 0, 4, samples=False), started=[make.start(2, prompt)]))
    assert first.rows[0].tokens == [] and first.rows[0].error is None
    found = run(make.plan(make.work(2, 4, 2))).rows[0].tokens
    for position in range(6, 12):
        found += run(make.plan(make.work(2, position))).rows[0].tokens
    assert found == model.follow(9, 7)


@pytest.mark.parametrize("kind", [ThreadRunner, StreamRunner])
def test_steps_run_in_order_without_waiting(kind, executor, model, make):
    runner = kind(executor)
    plans = [make.plan(make.work(0, 0, 2), started=[make.start(0, [7, 8])])]
    plans += [make.plan(make.work(0, position)) for position in range(2, 9)]
    launched = [runner.launch(each) for each in plans]
    assert [step.wait().rows[0].tokens[0] for step in launched] == model.follow(8, 8)
    runner.close()


def test_rows_of_a_batch_do_not_mix(run, model, make):
    starts = [make.start(row, [row, 10 + row]) for row in range(4)]
    mixed = [make.work(3, 0, 2), make.work(0, 0, 2), make.work(2, 0, 1, samples=False)]
    rows = run(make.plan(*mixed, started=starts)).rows
    assert rows[0].tokens == model.follow(13, 1)
    assert rows[1].tokens == model.follow(10, 1)
    assert rows[2].tokens == []


def test_a_row_is_taken_again(run, model, make):
    run(make.plan(make.work(1, 0, 2), started=[make.start(1, [1, 2])]))
    again = make.plan(make.work(1, 0, 1), started=[make.start(1, [30])], released=[1])
    assert run(again).rows[0].tokens == model.follow(30, 1)
    assert run(make.plan(released=[1])).rows == []


def test_numbers_that_are_not_finite_are_that_rows_error(run, model, make):
    starts = [make.start(0, [5]), make.start(1, [make.poison])]
    rows = run(make.plan(make.work(0, 0), make.work(1, 0), started=starts)).rows
    assert rows[0].tokens == model.follow(5, 1)
    assert rows[1].tokens == []
    assert "not finite" in rows[1].error


@pytest.mark.parametrize("token", [-1, 50, 2**40])
def test_a_token_outside_the_vocabulary_is_that_rows_error(token, run, model, make):
    starts = [make.start(0, [5]), make.start(1, [2, token])]
    rows = run(make.plan(make.work(0, 0), make.work(1, 0, 2), started=starts)).rows
    assert rows[0].tokens == model.follow(5, 1)
    assert "outside the vocabulary of 50" in rows[1].error
    freed = make.plan(make.work(1, 0), started=[make.start(1, [6])], released=[1])
    assert run(freed).rows[0].tokens == model.follow(6, 1)


def test_too_many_tokens_are_that_rows_error(run, make):
    rows = run(make.plan(make.work(1, 0), started=[make.start(1, [1] * 40)])).rows
    assert "40 tokens do not fit" in rows[0].error


def test_a_stage_that_raises_is_that_rows_error(run, model, make, monkeypatch):
    def explode(logits, rows):
        raise ValueError("no good")

    monkeypatch.setattr(Temperature, "apply", explode)
    starts = [
        make.start(0, [5]),
        make.start(1, [6], stages=(Temperature(temperature=0.5),)),
    ]
    items = make.work(0, 0), make.work(1, 0)
    rows = run(make.plan(*items, started=starts)).rows
    assert rows[0].tokens == model.follow(5, 1)
    assert "sampling failed: ValueError: no good" in rows[1].error
    assert issubclass(Temperature, Stage)


def test_a_failed_step_is_over_and_the_next_one_runs(run, model, make):
    starts = [make.start(0, [5]), make.start(1, [6])]
    model.fails = True
    rows = run(make.plan(make.work(0, 0), make.work(1, 0), started=starts)).rows
    assert all("the step failed: RuntimeError: out of luck" in row.error for row in rows)
    model.fails = False
    assert run(make.plan(make.work(0, 0))).rows[0].tokens == model.follow(5, 1)


def test_log_probabilities_of_prompt_and_token(run, model, make):
    prompt = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3]
    begin = make.start(0, prompt, logprobs=2, prompt_logprobs=3)
    chunks = [
        make.work(0, 0, 7, samples=False, prompt_logprobs=True),
        make.work(0, 7, 9, prompt_logprobs=True),
    ]
    first = run(make.plan(chunks[0], started=[begin])).rows[0]
    last = run(make.plan(chunks[1])).rows[0]
    scores = [*first.prompt_logprobs, *last.prompt_logprobs]
    expected = model.table[torch.tensor(prompt)].log_softmax(-1)
    assert [score.token for score in scores] == prompt[1:]
    for row, score in zip(expected, scores, strict=False):
        assert score.logprob == pytest.approx(float(row[score.token]), abs=1e-5)
        assert score.rank == int((row > row[score.token]).sum()) + 1
        assert [token for token, _ in score.top] == row.topk(3).indices.tolist()
    assert last.logprobs[0].token == last.tokens[0]
    assert len(last.logprobs[0].top) == 2
    assert last.logprobs[0].logprob == pytest.approx(float(expected[-1].max()), abs=1e-5)
