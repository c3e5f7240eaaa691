"""The sampler: rows alone and together, draws, greedy rows, failures, log-probabilities."""

import math

import numpy as np
import pytest
import torch
from aphrodite_engine.errors import RequestError
from aphrodite_engine.sampling.catalog import stages_from
from aphrodite_engine.sampling.logprobs import score
from aphrodite_engine.sampling.params import SamplingParams
from aphrodite_engine.sampling.sampler import Sampler, Standing
from aphrodite_engine.sampling.stages.banned_strings import BannedStrings
from aphrodite_engine.sampling.stages.logit_bias import LogitBias
from aphrodite_engine.sampling.stages.min_p import MinP
from aphrodite_engine.sampling.stages.penalties import Penalties
from aphrodite_engine.sampling.stages.quadratic import Quadratic
from aphrodite_engine.sampling.stages.skew import Skew
from aphrodite_engine.sampling.stages.temperature import Temperature
from aphrodite_engine.sampling.stages.token_ban_ranges import TokenBanRanges
from aphrodite_engine.sampling.stages.top_k import TopK
from aphrodite_engine.sampling.stages.typical_p import TypicalP
from aphrodite_engine.sampling.stages.xtc import Xtc
from aphrodite_kernels.backends import reference
from row_starts import row_start

_CPU = torch.device("cpu")
_BACKEND = reference.create(_CPU, threads=1, dtype=torch.float32)


pytestmark = pytest.mark.usefixtures("one_thread")


def start(row, *, choice=0, seed=0, prompt=1, stop=(), tokens=(), params=None, **fields):
    return row_start(
        row, fields, params=params, choice=choice, seed=seed, prompt_length=prompt,
        stop_tokens=list(stop), tokens=list(tokens),
    )  # fmt: skip


def sampler_of(*starts, **options):
    sampler = Sampler(_BACKEND, **options)
    for each in starts:
        sampler.start(each)
    return sampler


def sample(sampler, logits, rows=None, positions=None, history=None):
    rows = list(range(len(logits))) if rows is None else rows
    positions = [1] * len(rows) if positions is None else positions
    history = torch.zeros(64, 64, dtype=torch.int32) if history is None else history
    standing = Standing(list(rows), list(positions), torch.tensor(positions, dtype=torch.int32))
    return sampler.sample(logits, standing, history)


# Every mix of stages, greedy rows, and orders of their own.
_KINDS = [
    {},
    {"temperature": 0},
    {"temperature": 0.7, "top_p": 0.9, "min_p": 0.02},
    {"temperature": 1.5, "top_k": 20},
    {"repetition_penalty": 1.3, "presence_penalty": 0.5, "frequency_penalty": 0.2},
    {"temperature": 0, "repetition_penalty": 1.3, "frequency_penalty": 0.2, "top_k": 3},
    {"logit_bias": {3: 8.0, 11: -100}, "top_p": 0.99},
    {"dry_multiplier": 1.5, "dry_allowed_length": 1, "no_repeat_ngram_size": 2},
    {"repetition_penalty": 1.4, "rep_pen_range": 30, "rep_pen_slope": 0.3, "dry_multiplier": 0.8},
    {"custom_token_bans": [1, 2, 3], "token_ban_ranges": [[[4, 5], 0, 6]], "temperature": 0.9},
    {"allowed_token_ids": [*range(20)], "presence_penalty": 1, "rep_pen_range": 12},
    {"temperature": 3.0, "top_p": 0.97},
    {"nsigma": 1.5, "top_a": 0.2, "tfs": 0.95, "eta_cutoff": 4, "epsilon_cutoff": 3},
    {"dynatemp_min": 0.5, "dynatemp_max": 2.0, "typical_p": 0.9, "skew": 0.3},
    {"smoothing_factor": 0.4, "smoothing_curve": 2.0, "tfs": 0.9, "skew": -0.5},
    {"temperature": 1.4, "xtc_probability": 0.5, "xtc_threshold": 0.02},
    {
        "temperature": 0,
        "xtc_probability": 1,
        "typical_p": 0.1,
        "skew": 5,
        "smoothing_factor": 0.2,
        "tfs": 0.5,
    },
]


def crowd(vocabulary, rows=64):
    generator = torch.Generator().manual_seed(vocabulary)
    logits = 3 * torch.randn(rows, vocabulary, generator=generator)
    history = torch.randint(0, vocabulary, (rows, 64), generator=generator, dtype=torch.int32)
    starts, positions = [], []
    for row in range(rows):
        stages = stages_from(_KINDS[row % len(_KINDS)])
        if row % 3 == 2:
            stages = stages[::-1]
        params = SamplingParams(stages=stages, min_tokens=row % 5, logprobs=row % 4 or None)
        prompt = 3 + row % 20
        positions.append(prompt + row % 9)
        starts.append(
            start(
                row, choice=row % 2, seed=row * 977, prompt=prompt, stop=[0, 7], params=params,
                tokens=history[row, : positions[-1]].tolist(),
            )
        )  # fmt: skip
    return logits, history, starts, positions


@pytest.mark.parametrize("vocabulary", [49, 1000, 49152])
def test_a_row_alone_gives_the_token_it_gives_in_a_batch(vocabulary):
    """Bit for bit, log-probabilities too, at any size of batch, in any order."""
    logits, history, starts, positions = crowd(vocabulary)
    together = sample(sampler_of(*starts), logits, None, positions, history).read()
    split = sample(sampler_of(*starts, at_once=5 * vocabulary), logits, None, positions, history)
    assert split.read() == together
    order = list(range(63, -1, -1))
    backwards = sample(
        sampler_of(*starts), logits[order], order, [positions[row] for row in order], history
    )
    assert backwards.read()[::-1] == together
    for row in range(64):
        alone = sample(
            sampler_of(starts[row]), logits[row : row + 1], [row], [positions[row]], history
        )
        assert alone.read() == [together[row]], row
    assert all(draw.error is None for draw in together)


def test_a_row_is_the_same_with_any_number_of_threads():
    logits, history, starts, positions = crowd(49152, 8)
    one = sample(sampler_of(*starts), logits, None, positions, history).read()
    torch.set_num_threads(2)
    alone = [
        sample(sampler_of(starts[row]), logits[row : row + 1], [row], [positions[row]], history)
        for row in range(8)
    ]
    assert [each.read()[0].token for each in alone] == [draw.token for draw in one]


def test_rows_come_and_go():
    """The parameters of a row are those it was last started with."""
    logits = torch.tensor([[0.0, 1.0, 0.5]] * 2)
    sampler = sampler_of(start(0, temperature=0), start(1, temperature=0, logit_bias={0: 5}))
    assert sample(sampler, logits).tokens.tolist() == [1, 0]
    assert sample(sampler, logits, [1, 0]).tokens.tolist() == [0, 1]
    sampler.release(1)
    sampler.start(start(1, temperature=0, logit_bias={2: 5}))
    assert sample(sampler, logits).tokens.tolist() == [1, 2]
    assert sample(sampler, logits[:1], [1]).tokens.tolist() == [2]


def test_logits_are_left_alone():
    logits, history, starts, positions = crowd(500)
    before = logits.clone()
    sample(sampler_of(*starts), logits, None, positions, history)
    assert torch.equal(logits, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_greedy_takes_the_first_of_the_likeliest(dtype):
    logits = torch.randn(5, 700).to(dtype)
    logits[2, 300:] = logits[2].max()
    out = sample(sampler_of(*(start(row, temperature=0) for row in range(5))), logits)
    assert out.tokens.tolist() == logits.argmax(-1).tolist()
    assert out.tokens[2] <= 300
    assert out.tokens.dtype == torch.int32


def test_greedy_rows_stop_at_their_temperature():
    """Penalties and biases act before it; filters need not, and nothing acts after it."""
    logits = torch.tensor([[3.0, 2.9, 0.0]])
    history = torch.zeros(1, 4, dtype=torch.int32)
    chain = (Penalties(2.0), Temperature(0), LogitBias({2: 50}))
    row = start(0, params=SamplingParams(stages=chain))
    assert sample(sampler_of(row), logits, history=history).tokens.tolist() == [1]


def test_greedy_rows_skip_what_is_about_draws():
    """Wherever the cold temperature stands: each of these would move the best."""
    logits = torch.tensor([[3.0, 2.9, 2.8, 0.0]])
    chain = (TypicalP(0.0), Quadratic(5.0, 9.0), Xtc(1.0, 0.1), Skew(3.0), Temperature(0))
    row = start(0, params=SamplingParams(stages=chain))
    assert sample(sampler_of(row), logits).tokens.tolist() == [0]


def test_the_order_of_stages_is_the_order_given():
    """min_p before a hot temperature keeps fewer tokens than after it."""
    logits = torch.tensor([[4.0, 0.0, -0.5, -1.0]]).repeat(200, 1)
    drawn = []
    for chain in [(MinP(0.1), Temperature(5)), (Temperature(5), MinP(0.1))]:
        starts = [start(r, seed=r, params=SamplingParams(stages=chain)) for r in range(200)]
        out = sample(sampler_of(*starts), logits, history=torch.zeros(200, 2, dtype=torch.int32))
        drawn.append(set(out.tokens.tolist()))
    assert drawn == [{0}, {0, 1, 2, 3}]


def test_min_tokens_bans_ends_until_reached():
    logits = torch.tensor([[1.0, 9.0, 2.0, 8.0]])
    params = SamplingParams(stages=(Temperature(0),), min_tokens=2)
    sampler = sampler_of(start(0, prompt=5, stop=[1, 3], params=params))
    tokens = [sample(sampler, logits, positions=[at]).tokens.item() for at in (5, 6, 7, 8)]
    assert tokens == [2, 2, 1, 1]


@pytest.mark.parametrize(
    ("min_tokens", "stages"),
    [
        (4, ()),
        (0, (TokenBanRanges((((1,), 0, 2), ((3,), 2, 2), ((3,), 0, 0))),)),
        (0, (BannedStrings(("x",), place=8, tokens=(1, 3)),)),
    ],
    ids=["min_tokens", "token_ban_ranges", "banned_strings"],
)
def test_stages_that_are_over_cost_nothing(min_tokens, stages):
    """Greedy rows then take what is known to be the likeliest, and nothing reads their logits."""
    params, last = SamplingParams(stages=(*stages, Temperature(0)), min_tokens=min_tokens), 8
    sampler = sampler_of(*(start(row, prompt=5, stop=[1, 3], params=params) for row in (0, 1)))
    known = torch.tensor([2, 2], dtype=torch.int32), torch.tensor([True, True])
    logits = torch.tensor([[9.0, 8.0, 0.0, 7.0]] * 2)
    history = torch.zeros(2, 16, dtype=torch.int32)
    for positions in ([5, 5], [last, last], [last, last + 1], [last + 1, last + 1]):
        standing = Standing([0, 1], positions, torch.tensor(positions, dtype=torch.int32))
        tokens = sampler.sample(logits, standing, history, known).tokens.tolist()
        assert tokens == ([2, 2] if min(positions) > last else [0, 0])


def test_rows_that_pause_do_not_end_stages_of_others():
    """A row that has nothing to sample stays, and so does what the batch knew of it."""
    params = SamplingParams(stages=(Temperature(0),), min_tokens=3)
    starts = [start(0, temperature=0), start(1, prompt=5, stop=[0], params=params)]
    sampler, logits = sampler_of(*starts), torch.tensor([[2.0, 1.0]] * 2)
    for rows, positions, tokens in (
        ([0, 1], [9, 5], [0, 1]),
        ([0], [10], [0]),
        ([0, 1], [11, 7], [0, 1]),
        ([1], [8], [0]),
        ([0, 1], [12, 8], [0, 0]),
    ):
        assert sample(sampler, logits[rows], rows, positions).tokens.tolist() == tokens


# Draws.


def chi_square(counts, probabilities):
    expected = probabilities * counts.sum()
    big = expected >= 5
    counts = np.append(counts[big], counts[~big].sum())
    expected = np.append(expected[big], expected[~big].sum())
    kept = expected > 0
    statistic = ((counts - expected)[kept] ** 2 / expected[kept]).sum()
    freedom = kept.sum() - 1
    return (statistic - freedom) / math.sqrt(2 * freedom)


def test_draws_follow_the_distribution():
    """Over positions of one seed and over seeds: chi-square within five standard deviations."""
    n, vocabulary = 20000, 300
    row = 1.5 * torch.randn(vocabulary, generator=torch.Generator().manual_seed(3))
    logits = row.expand(n, -1)
    probabilities = torch.softmax(row.double(), -1).numpy()
    places = torch.arange(n, dtype=torch.int32)
    none = torch.zeros(n, dtype=torch.int32)
    for seeds, positions in [(torch.full((n,), 42), places), (places.long(), none)]:
        uniform = _BACKEND.uniform(seeds, none, positions, 0)
        tokens, valid = _BACKEND.draw(logits, uniform)
        assert valid.all()
        counts = np.bincount(tokens.numpy(), minlength=vocabulary)
        assert abs(chi_square(counts, probabilities)) < 5


def test_draws_depend_on_seed_choice_and_position():
    logits = torch.zeros(1, 50000)
    seen = set()
    for seed in (0, 1, -1, 2**63 - 1, 2**64 - 2):
        for choice in (0, 1):
            sampler = sampler_of(start(0, seed=seed, choice=choice))
            for position in (1, 2, 100000):
                seen.add(sample(sampler, logits, positions=[position]).tokens.item())
    assert len(seen) > 25  # of 30; equal ones are chance
    twin = [sample(sampler_of(start(0, seed=s)), logits).tokens.item() for s in (-1, 2**64 - 1)]
    assert twin[0] == twin[1]


# Failures.


@pytest.mark.parametrize("kind", range(len(_KINDS)))
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_a_broken_row_fails_alone(kind, poison):
    logits = torch.randn(4, 1000)
    if poison == -math.inf:
        logits[2] = poison
    else:
        logits[2, 999] = poison
    starts = [start(row, seed=row, **_KINDS[kind]) for row in range(4)]
    out = sample(sampler_of(*starts), logits)
    good = [draw.error is None for draw in out.read()]
    assert good == [True, True, False, True]
    assert (out.tokens >= 0).all() and (out.tokens < 1000).all()
    clean = sampler_of(*(s for s in starts if s.row != 2))
    rows = [0, 1, 3]
    assert sample(clean, logits[rows], rows).tokens.tolist() == out.tokens[rows].tolist()


def test_token_ids_are_compared_with_the_vocabulary():
    for params, name in [
        (SamplingParams(stages=(LogitBias({500: 1.0}),)), "logit_bias"),
        (SamplingParams(stop_token_ids=(500,)), "stop_token_ids"),
    ]:
        params.check_vocabulary(501)
        with pytest.raises(RequestError, match=r"token 500.*ends at 499") as caught:
            params.check_vocabulary(500)
        assert caught.value.field == name


# Log-probabilities.


def by_hand(logits, token, count):
    logits = logits.double()
    logprobs = torch.log_softmax(logits, -1)
    order = torch.argsort(logits, descending=True, stable=True)[:count]
    rank = 1 + int((logits > logits[token]).sum())
    return rank, float(logprobs[token]), [(int(t), float(logprobs[t])) for t in order]


def assert_scored(scored, logits, token, count):
    rank, logprob, top = by_hand(logits, token, count)
    assert (scored.token, scored.rank) == (token, rank)
    assert scored.logprob == pytest.approx(logprob, abs=2e-5)
    assert [t for t, _ in scored.top] == [t for t, _ in top]
    assert [p for _, p in scored.top] == pytest.approx([p for _, p in top], abs=2e-5)


def test_logprobs_are_those_of_the_model_before_any_stage():
    logits = 2 * torch.randn(6, 500)
    counts = [None, 0, 1, 5, 20, None]
    starts = [
        start(
            row,
            seed=row,
            params=SamplingParams(stages=(Temperature(0.2), TopK(2)), logprobs=count),
        )
        for row, count in enumerate(counts)
    ]
    draws = sample(sampler_of(*starts), logits).read()
    for drawn, count, row in zip(draws, counts, logits, strict=True):
        if count is None:
            assert drawn.logprobs is None
        else:
            assert len(drawn.logprobs.top) == count
            assert_scored(drawn.logprobs, row, drawn.token, count)


@pytest.mark.parametrize("count", [0, 1, 5, 20])
def test_scores_of_given_tokens(count):
    generator = torch.Generator().manual_seed(count)
    logits = 3 * torch.randn(9, 1000, generator=generator)
    tokens = torch.randint(0, 1000, (9,), generator=generator)
    for i, each in enumerate(score(logits, tokens, count, _BACKEND.logsumexp).read([count] * 9)):
        assert_scored(each, logits[i], int(tokens[i]), count)


def test_logprobs_hold_no_infinity_and_no_nan():
    """JSON knows neither."""
    logits = torch.tensor([[0.0, -math.inf, -math.inf], [math.nan, 1.0, 2.0]])
    tokens = torch.tensor([1, 0])
    whole = score(logits, tokens, 3, _BACKEND.logsumexp).read([3, 3])
    for scored in whole:
        assert all(math.isfinite(p) for p in (scored.logprob, *(p for _, p in scored.top)))
        assert scored.rank >= 1
    assert whole[0].logprob == -9999
    assert whole[0].top[0] == (0, 0.0)


def test_a_row_start_after_preemption_goes_on_with_the_same_draws():
    """Of a text whose stages remember nothing, position and history decide."""
    logits = torch.randn(4, 1, 800, generator=torch.Generator().manual_seed(1))
    row = start(0, seed=5, prompt=2, temperature=1.3, repetition_penalty=1.2)
    history = torch.zeros(1, 16, dtype=torch.int32)

    def generate(sampler, steps):
        for step in steps:
            token = sample(sampler, logits[step], [0], [2 + step], history).tokens
            history[0, 2 + step] = token[0]
        return history.tolist()

    whole = generate(sampler_of(row), range(4))[0]
    history[0, 4:] = 99  # what another request left behind
    assert generate(sampler_of(row), range(2, 4))[0] == [*whole[:6], *[99] * 10]
