"""Stages that remember: what they remember follows the text, and nothing else."""

import math

import numpy as np
import pytest
import torch
from aphrodite_engine.sampling.catalog import stages_from
from aphrodite_engine.sampling.params import SamplingParams
from aphrodite_engine.sampling.sampler import Sampler, Standing
from aphrodite_engine.sampling.stages.adaptive_p import AdaptiveP
from aphrodite_engine.sampling.stages.logit_bias import LogitBias
from aphrodite_engine.sampling.stages.min_p import MinP
from aphrodite_engine.sampling.stages.mirostat import Mirostat
from aphrodite_engine.sampling.stages.temperature import Temperature
from aphrodite_kernels import backend_for
from row_starts import row_start

_CPU = torch.device("cpu")
_BACKEND = backend_for(_CPU, threads=1)
_VOCABULARY = 700

_FIRST = {"mirostat": 1, "mirostat_tau": 3.0, "mirostat_eta": 0.3}
_SECOND = {"mirostat_mode": 2, "mirostat_tau": 4.0, "mirostat_eta": 0.2, "temperature": 1.3}
_ADAPTIVE = {"adaptive_target": 0.3, "adaptive_decay": 0.8, "min_p": 0.01}
_KINDS = [
    _FIRST,
    {},
    _SECOND,
    {"temperature": 0},
    _ADAPTIVE,
    {"temperature": 0.8, "top_p": 0.9},
    {**_SECOND, **_ADAPTIVE},
    {**_SECOND, "mirostat_tau": 2.0, "top_k": 50},
]


pytestmark = pytest.mark.usefixtures("one_thread")


def start(row, fields=None, *, seed=0, remembered=None, params=None):
    return row_start(row, fields, params=params, seed=seed, remembered=remembered or {})


def sampler_of(*starts, **options):
    sampler = Sampler(_BACKEND, **options)
    for each in starts:
        sampler.start(each)
    return sampler


def step(sampler, logits, rows, position):
    standing = Standing(
        list(rows), [position] * len(rows), torch.tensor([position] * len(rows)).int()
    )
    return sampler.sample(logits, standing, torch.zeros(200, 64, dtype=torch.int32)).read()


def logits_at(position, rows=1):
    """Now flat and now peaked, with holes and ties; the same for a row whoever is beside it."""
    made = []
    for row in range(rows):
        generator = torch.Generator().manual_seed(1000 * row + position)
        one = (1 + position % 4) * torch.randn(_VOCABULARY, generator=generator)
        if position % 5 == 3:
            one = one.round()
        if position % 3 == 2:
            one[torch.rand(_VOCABULARY, generator=generator) < 0.5] = -math.inf
        one[row % _VOCABULARY] = 0.5
        made.append(one)
    return torch.stack(made)


# Each against its definition, over a whole text, in float64.


def softmax(logits):
    weights = np.exp(logits - logits[logits > -np.inf].max())
    return weights / weights.sum()


def zipf_count(p, surprise):
    """How many tokens algorithm 1 of arXiv 2007.14966 keeps; p is sorted, largest first."""
    ranks = np.arange(1, min(100, np.count_nonzero(p)) + 1)
    x, y = np.diff(np.log(ranks)), -np.diff(np.log(p[: len(ranks)]))
    s = (x @ y) / (x @ x)
    share = (s - 1) / (1 - float(len(p)) ** (1 - s))
    return max(1, int((share * 2**surprise) ** (1 / s)))


class MirostatText:
    """One text under mirostat."""

    def __init__(self, fields):
        self.version = fields.get("mirostat_mode") or fields.get("mirostat")
        self.tau, self.eta = fields["mirostat_tau"], fields["mirostat_eta"]
        self.temperature = fields.get("temperature", 1.0)
        self.mu = 2 * self.tau

    def take(self, logits, token):
        """Check that a token may come, and take it."""
        p = softmax(logits / self.temperature)
        if self.version == 1:
            count = zipf_count(np.sort(p)[::-1], self.mu)
            assert np.count_nonzero(p > p[token] * (1 + 1e-5)) < count
        else:
            assert -np.log2(p[token]) <= self.mu + 1e-3 or p[token] == p.max()
        self.mu -= self.eta * (-np.log2(p[token]) - self.tau)
        return {"mirostat.limit": self.mu}


class AdaptiveText:
    """One text under adaptive-p: the sums of the definition, each token's weight by its age."""

    def __init__(self, fields):
        self.target, self.decay = fields["adaptive_target"], fields["adaptive_decay"]
        self.share = fields["min_p"]
        self.chosen = []

    def take(self, logits, token):
        p = softmax(logits)
        assert p[token] >= self.share * p.max() * (1 - 1e-5)
        p = np.where(p >= self.share * p.max(), p, 0)
        self.chosen.append(p[token] / p.sum())
        ages = np.arange(len(self.chosen))[::-1]
        past = self.target * self.decay ** len(self.chosen)
        mean = past + (1 - self.decay) * (self.decay**ages @ np.array(self.chosen))
        return {"adaptive_p.mean": mean}


@pytest.mark.parametrize(
    ("text", "fields"),
    [(MirostatText, _FIRST), (MirostatText, _SECOND), (AdaptiveText, _ADAPTIVE)],
    ids=["mirostat-1", "mirostat-2", "adaptive-p"],
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_fifty_steps_follow_the_definition(text, fields, seed):
    sampler, text = sampler_of(start(5, fields, seed=seed)), text(fields)
    for position in range(1, 51):
        logits = logits_at(position)
        (draw,) = step(sampler, logits, [5], position)
        wanted = text.take(logits[0].double().numpy(), draw.token)
        assert draw.remembered == pytest.approx(wanted, abs=2e-4), position


@pytest.mark.parametrize("mode", [1, 2])
@pytest.mark.parametrize("tau", [3.5, 5.0])
def test_mirostat_holds_the_surprise_at_its_target(mode, tau):
    """Under Zipf's law with changing exponents; without the stage the mean is 8."""
    sampler = sampler_of(
        start(0, {"mirostat": mode, "mirostat_tau": tau, "mirostat_eta": 0.2}, seed=3)
    )
    ranks = torch.arange(1, 3001).float()
    surprise = []
    for position in range(1, 601):
        logits = -(0.9 + 0.2 * (position % 3)) * ranks.log()[None]
        (draw,) = step(sampler, logits, [0], position)
        surprise.append(-float(logits.log_softmax(-1)[0, draw.token]) / math.log(2))
    assert np.mean(surprise[50:]) == pytest.approx(tau, abs=0.15)


def test_adaptive_p_holds_the_probability_at_its_target():
    fields = {"adaptive_target": 0.4, "adaptive_decay": 0.9, "min_p": 0.02}
    sampler = sampler_of(start(0, fields, seed=3))
    likely = torch.tensor([[0.5, 0.2, 0.15, 0.1, 0.05], [0.8, 0.1, 0.05, 0.03, 0.02]]).log()
    means = []
    for position in range(1, 401):
        logits = likely[position % 2][None]
        (draw,) = step(sampler, logits, [0], position)
        means.append(draw.remembered["adaptive_p.mean"])
    assert np.mean(means) == pytest.approx(0.4, abs=0.05)


# Rows.


def texts(starts, steps=range(1, 13), **options):
    """Draws of every row at every step, all rows together; logits by the row's seed."""
    sampler = sampler_of(*starts, **options)
    rows = [each.row for each in starts]
    seeds = [each.seed for each in starts]
    return [step(sampler, logits_at(at, 64)[seeds], rows, at) for at in steps]


def test_a_row_is_the_same_alone_and_in_a_crowd():
    """Bit for bit, what is remembered included; in batches of any size, in any order and row."""
    starts = [start(row, _KINDS[row % len(_KINDS)], seed=row) for row in range(64)]
    together = texts(starts)
    assert texts(starts, at_once=5 * _VOCABULARY) == together
    assert [draws[::-1] for draws in texts(starts[::-1])] == together
    for row in range(16):
        alone = texts([start(100 + row, _KINDS[row % len(_KINDS)], seed=row)])
        assert [draws[0] for draws in alone] == [draws[row] for draws in together], row


def test_rows_beside_it_stay_as_they_are():
    """A row without such stages remembers nothing, and does not notice."""
    plain = [start(row, _KINDS[row % 2 * 2 + 1], seed=row) for row in range(4)]
    alone = texts(plain)
    beside = texts([*plain, *(start(row, _KINDS[row % 2 * 2], seed=row) for row in range(4, 9))])
    assert [draws[:4] for draws in beside] == alone
    assert all(draw.remembered == {} for draws in alone for draw in draws)


@pytest.mark.parametrize("fields", [_FIRST, _SECOND, _ADAPTIVE, {**_SECOND, **_ADAPTIVE}])
def test_a_text_goes_on_after_preemption(fields):
    """With what its last token left, in another row, while somebody else has had its own."""
    whole = texts([start(3, fields, seed=9)])
    begun = texts([start(3, fields, seed=9)], range(1, 6))
    sampler = sampler_of(start(3, fields, seed=9))
    for at in range(1, 6):
        step(sampler, logits_at(at, 64)[[9]], [3], at)
    sampler.release(3)
    sampler.start(start(3, _FIRST, seed=1))
    step(sampler, logits_at(6, 64)[[1]], [3], 6)
    sampler.start(start(40, fields, seed=9, remembered=begun[-1][0].remembered))
    rest = [step(sampler, logits_at(at, 64)[[9]], [40], at) for at in range(6, 13)]
    assert begun + rest == whole


def test_a_row_that_starts_remembers_nothing_of_the_last_one():
    sampler = sampler_of(start(0, _SECOND, seed=1))
    for at in range(1, 6):
        step(sampler, logits_at(at, 64)[[1]], [0], at)
    sampler.release(0)
    sampler.start(start(0, _SECOND, seed=2))
    assert step(sampler, logits_at(1, 64)[[2]], [0], 1) == texts([start(7, _SECOND, seed=2)])[0]


def test_a_step_that_fails_is_not_remembered(monkeypatch):
    """Its rows are sampled again, one by one: as if for the first time."""
    params = SamplingParams(stages=stages_from(_SECOND), logprobs=1)
    starts = [start(row, params=params, seed=row) for row in range(3)]
    whole = texts(starts)
    sampler = sampler_of(*starts)

    def refuse(*args):
        raise RuntimeError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr("aphrodite_engine.sampling.sampler.score", refuse)
        with pytest.raises(RuntimeError):
            step(sampler, logits_at(1, 64)[:3], range(3), 1)
    again = [step(sampler, logits_at(1, 64)[[row]], [row], 1)[0] for row in range(3)]
    assert again == whole[0]
    assert step(sampler, logits_at(2, 64)[:3], range(3), 2) == whole[1]


def test_a_row_that_fails_does_not_harm_the_others():
    starts = [start(row, _SECOND, seed=row) for row in range(3)]
    sampler = sampler_of(*starts)
    logits = logits_at(1, 64)[:3]
    logits[1] = math.nan
    draws = step(sampler, logits, range(3), 1)
    assert [draw.error is None for draw in draws] == [True, False, True]
    assert [draws[0], draws[2]] == texts([starts[0], starts[2]], [1])[0]


def test_greedy_rows_skip_them_wherever_they_stand():
    chain = (AdaptiveP(0.1), Mirostat(2, 0.1), LogitBias({0: 20.0}), Temperature(0))
    sampler = sampler_of(start(0, params=SamplingParams(stages=chain)))
    logits = logits_at(1)
    logits[0, 0] = logits.max() - 19
    (draw,) = step(sampler, logits, [0], 1)
    assert (draw.token, draw.remembered) == (0, {})


def test_surprise_is_measured_where_the_stage_stands():
    """What comes after it changes the draw and not the measure."""
    chain = (Mirostat(2, 3.0, 0.5), MinP(0.3), Temperature(0.5))
    sampler = sampler_of(start(0, params=SamplingParams(stages=chain)))
    logits = logits_at(4)
    (draw,) = step(sampler, logits, [0], 4)
    surprise = -np.log2(softmax(logits[0].double().numpy())[draw.token])
    wanted = 6.0 - 0.5 * (surprise - 3.0)
    assert draw.remembered["mirostat.limit"] == pytest.approx(wanted, abs=1e-4)
