"""Every stage: the laws that hold for all, and each against implementations that are not ours."""

import importlib
import json
from functools import partial
from pathlib import Path

import annotated_types
import numpy as np
import pytest
import torch
from aphrodite_engine.errors import RequestError
from aphrodite_engine.sampling.batch import passes_of
from aphrodite_engine.sampling.catalog import stage_fields, stages
from aphrodite_engine.sampling.fields import fields_of
from aphrodite_engine.sampling.history import read_history
from aphrodite_engine.sampling.recurrence import Recurrence
from aphrodite_engine.sampling.rows import Draws, Rows
from aphrodite_engine.sampling.stages.adaptive_p import AdaptiveP
from aphrodite_engine.sampling.stages.allowed_token_ids import AllowedTokenIds
from aphrodite_engine.sampling.stages.bad_words import BadWords
from aphrodite_engine.sampling.stages.ban_eos_token import BanEosToken
from aphrodite_engine.sampling.stages.custom_token_bans import CustomTokenBans
from aphrodite_engine.sampling.stages.epsilon_cutoff import EpsilonCutoff
from aphrodite_engine.sampling.stages.eta_cutoff import EtaCutoff
from aphrodite_engine.sampling.stages.logit_bias import LogitBias
from aphrodite_engine.sampling.stages.min_p import MinP
from aphrodite_engine.sampling.stages.min_tokens import MinTokens
from aphrodite_engine.sampling.stages.mirostat import Mirostat
from aphrodite_engine.sampling.stages.no_repeat_ngram import NoRepeatNgram
from aphrodite_engine.sampling.stages.penalties import Penalties
from aphrodite_engine.sampling.stages.quadratic import Quadratic
from aphrodite_engine.sampling.stages.skew import Skew
from aphrodite_engine.sampling.stages.temperature import Temperature
from aphrodite_engine.sampling.stages.tfs import Tfs
from aphrodite_engine.sampling.stages.token_ban_ranges import TokenBanRanges
from aphrodite_engine.sampling.stages.top_a import TopA
from aphrodite_engine.sampling.stages.top_k import TopK
from aphrodite_engine.sampling.stages.top_n_sigma import TopNSigma
from aphrodite_engine.sampling.stages.top_p import TopP
from aphrodite_engine.sampling.stages.typical_p import TypicalP
from aphrodite_engine.sampling.stages.xtc import Xtc
from aphrodite_kernels import backend_for
from history_stages import CASES, NAMING, banned, definition

_CPU = torch.device("cpu")
_OPS = backend_for(_CPU, threads=1)
_INF = float("inf")

# At work, with values that change something on most logits.
_AT_WORK = {
    "min_tokens": [MinTokens(40, (0, 3))],
    "logit_bias": [LogitBias({0: 4.0, 5: -100.0})],
    "penalties": [Penalties(1.3, 0.5, 0.25), Penalties(0.8, -2.0, 2.0), Penalties(1.2)],
    "temperature": [
        Temperature(0.3),
        Temperature(2.5),
        Temperature(dynatemp_min=0.4, dynatemp_max=2.0, dynatemp_exponent=2.0),
        Temperature(dynatemp_max=1.5, dynatemp_range=9.0),
        Temperature(0.8, dynatemp_range=0.5),
        Temperature(0.8, dynatemp_range=1.5, dynatemp_exponent=0.5),
        Temperature(0.7, dynatemp_max=3.0, dynamic_temperature=False),
    ],
    "top_k": [TopK(1), TopK(3), TopK(50)],
    "top_p": [TopP(0.05), TopP(0.5), TopP(0.95), TopP(0.9999)],
    "min_p": [MinP(0.001), MinP(0.1), MinP(1.0)],
    "top_n_sigma": [TopNSigma(0.3), TopNSigma(1.0), TopNSigma(3.5)],
    "top_a": [TopA(0.01), TopA(0.3), TopA(50.0)],
    "tfs": [Tfs(0.3), Tfs(0.9), Tfs(0.99)],
    "eta_cutoff": [EtaCutoff(3.0), EtaCutoff(200.0), EtaCutoff(30000.0)],
    "epsilon_cutoff": [EpsilonCutoff(3.0), EpsilonCutoff(200.0), EpsilonCutoff(30000.0)],
    "typical_p": [TypicalP(0.0), TypicalP(0.2), TypicalP(0.9)],
    "quadratic": [Quadratic(0.3), Quadratic(2.0, 2.5), Quadratic(0.5, 8.0)],
    "xtc": [Xtc(1.0, 0.1), Xtc(1.0, 0.01), Xtc(1.0, 0.0)],
    "skew": [Skew(0.5), Skew(-1.5), Skew(1.2)],
    "mirostat": [Mirostat(1, 1.5), Mirostat(2, 2.5), Mirostat(2, 0.0), Mirostat(1, 3.0)],
    "adaptive_p": [AdaptiveP(0.05), AdaptiveP(0.6), AdaptiveP(1.0)],
}
for _name, _more in CASES.items():
    _AT_WORK.setdefault(_name, []).extend(_more)


pytestmark = pytest.mark.usefixtures("one_thread")


def run(each, logits, tokens=None, prompts=None, lengths=None):
    """One stage per row over logits [n, V]; tokens: the rows' histories."""
    n = len(each)
    tokens = torch.zeros(n, 1) if tokens is None else tokens
    lengths = [tokens.shape[1]] * n if lengths is None else lengths
    prompts = [1] * n if prompts is None else prompts
    known = [row[:length].tolist() for row, length in zip(tokens.long(), lengths, strict=True)]
    recurrence = Recurrence(_CPU)
    for row in range(n):
        recurrence.start(row, known[row])
    history = read_history(
        tokens[:, : max(lengths)].int(),
        torch.tensor(lengths)[:, None],
        torch.tensor(prompts)[:, None],
        max(a - b for a, b in zip(lengths, prompts, strict=True)),
        partial(recurrence.follow, range(n), lengths, torch.arange(n), tokens.shape),
    )
    draws = Draws(
        torch.arange(n),
        torch.zeros(n).int(),
        torch.tensor(lengths, dtype=torch.int32),
        _OPS.uniform,
    )
    (step,) = passes_of([[stage] for stage in each], _CPU)
    out = logits.clone()
    rows = Rows(
        columns=step.columns,
        given=step.given,
        entries=step.entries,
        tables=step.tables,
        draws=draws,
        ops=_OPS,
        history=history,
        remembered={
            name: torch.tensor(
                [[float(s.recall(row)[name])] for s, row in zip(each, known, strict=True)]
            )
            for name in step.stage.remembers
        },
    )
    step.stage.apply(out, rows)
    return out


def logits_of(kind, vocabulary, rows=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(rows, vocabulary, generator=generator)
    if kind == "ties":
        logits = logits.round()
    elif kind == "holes":
        holes = torch.rand(rows, vocabulary, generator=generator) < 0.7
        holes[:, -1] = False
        logits[holes] = -_INF
    elif kind == "equal":
        logits[:] = 1.5
    elif kind == "peaked":
        logits[:, vocabulary // 2] += 40
    return logits


_SHAPES = [
    ("random", 1),
    ("random", 2),
    ("random", 300),
    ("ties", 300),
    ("holes", 300),
    ("equal", 300),
    ("peaked", 300),
    ("random", 9001),
    ("ties", 9001),
    ("holes", 20000),
    ("random", 131072),
]
_FILTERS = {"top_k", "top_p", "min_p", "mirostat"}
_FILTERS |= {"top_n_sigma", "top_a", "tfs", "eta_cutoff", "epsilon_cutoff"}


def every_stage_at_work(only=None):
    return [
        pytest.param(stage, id=f"{name}-{index}")
        for name, many in _AT_WORK.items()
        if only is None or name in only
        for index, stage in enumerate(many)
    ]


# Laws.


def test_every_stage_has_cases():
    assert set(_AT_WORK) == {stage.name() for stage in stages()}


def test_orders_are_different():
    assert len({stage.order for stage in stages()}) == len(stages())


@pytest.mark.parametrize("stage", stages(), ids=lambda stage: stage.name())
@pytest.mark.parametrize("kind", ["random", "ties", "holes", "equal"])
def test_default_is_the_identity(stage, kind):
    logits = logits_of(kind, 300)
    tokens = torch.randint(0, 300, (3, 20))
    assert not stage().active
    assert torch.equal(run([stage()] * 3, logits, tokens), logits)


@pytest.mark.parametrize("stage", every_stage_at_work())
def test_stages_are_documented_and_at_work(stage):
    assert stage.active
    for field in fields_of(type(stage)):
        assert field.doc and field.doc[0].isupper() and field.doc.endswith("."), field.name


@pytest.mark.parametrize("declared", stage_fields(), ids=lambda declared: declared.name)
def test_bounds_are_enforced(declared):
    stage, name = declared.stage, declared.name
    for bound in declared.field.bounds:
        match bound:
            case annotated_types.Ge(limit) | annotated_types.Le(limit):
                edge, beyond = limit, 1
                if isinstance(bound, annotated_types.Ge):
                    beyond = -2
                stage(**{name: edge})
            case annotated_types.Gt(limit):
                edge, beyond = limit, -1 if limit in stage.off_values.get(name, ()) else 0
            case annotated_types.Lt(limit):
                edge, beyond = limit, 0
        with pytest.raises(RequestError, match=rf"^{name} must be .*, found ") as caught:
            stage(**{name: edge + beyond})
        assert caught.value.field == name
    flag = 2 if declared.field.type is bool else True
    for wrong in ("much", None, flag, float("nan"), float("inf"), [1]):
        with pytest.raises(RequestError, match=name):
            stage(**{name: wrong})


@pytest.mark.parametrize("stage", every_stage_at_work(_FILTERS))
@pytest.mark.parametrize(("kind", "vocabulary"), _SHAPES)
def test_filters_keep_the_likeliest_and_change_nothing_else(stage, kind, vocabulary):
    logits = logits_of(kind, vocabulary)
    out = run([stage] * 3, logits)
    kept = out > -_INF
    assert torch.equal(out[kept], logits[kept])
    best = logits == logits.amax(-1, keepdim=True)
    assert kept[best].all()


@pytest.mark.parametrize("stage", every_stage_at_work())
def test_argmax_is_kept_where_declared(stage):
    if not type(stage).keeps_argmax:
        return
    logits = logits_of("random", 300)
    assert torch.equal(run([stage] * 3, logits).argmax(-1), logits.argmax(-1))


@pytest.mark.parametrize("many", _AT_WORK.values(), ids=_AT_WORK)
@pytest.mark.parametrize("vocabulary", [1, 257, 10007])
def test_a_row_is_the_same_in_any_company(many, vocabulary):
    """Bit for bit: rows of different parameters, lengths and logits together, and each alone."""
    if vocabulary == 1:
        many = [s for s in many if not isinstance(s, LogitBias | MinTokens | NAMING)]
        if not many:
            return
    rows = 17
    kinds = ["random", "ties", "holes", "peaked"]
    logits = torch.cat([logits_of(kinds[i % 4], vocabulary, 1, i) for i in range(rows)])
    each = [many[i % len(many)] for i in range(rows)]
    tokens = torch.randint(0, vocabulary, (rows, 64))
    lengths = [3 + 3 * i for i in range(rows)]
    prompts = [1 + 2 * i for i in range(rows)]
    together = run(each, logits, tokens, prompts, lengths)
    for i in range(rows):
        one = slice(i, i + 1)
        alone = run(each[one], logits[one], tokens[one], prompts[one], lengths[one])
        assert torch.equal(alone, together[one]), i


# Each stage against its definition, in float64.


def softmax64(logits):
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def mirostat_count(x, limit):
    """Algorithm 1 of arXiv 2007.14966, over the tokens that are possible."""
    p = np.sort(softmax64(x))[::-1]
    p = p[p > 0][:100]
    if len(p) == 1:
        return 1
    t = [np.log((i + 2) / (i + 1)) for i in range(len(p) - 1)]
    b = [np.log(p[i] / p[i + 1]) for i in range(len(p) - 1)]
    s = np.dot(t, b) / np.dot(t, t)
    if s < 1e-6:  # flat
        return len(x) if 2.0**limit >= len(x) - 1 else 1
    k = ((s - 1) * 2.0**limit / (1 - len(x) ** (1 - s))) ** (1 / s)
    return int(np.clip(k, 1, len(x)))


def entropy64(p):
    p = p[p > 0]
    return -(p * np.log(p)).sum()


def temperature64(stage, x):
    low, high = stage.dynatemp_min, stage.dynatemp_max
    if (low, high) == (0, 0):
        low = max(0, stage.temperature - stage.dynatemp_range)
        high = stage.temperature + stage.dynatemp_range
    possible = (x > -_INF).sum()
    if not stage.dynamic_temperature:
        return stage.temperature
    unsure = entropy64(softmax64(x)) / np.log(possible) if possible > 1 else 0
    return max(1e-5, low + (high - low) * unsure**stage.dynatemp_exponent)


def tail_free64(z, x):
    order = np.argsort(-x, kind="stable")
    p = softmax64(x)[order]
    bends = np.abs(np.diff(np.diff(p)))
    if not bends.sum():
        return x
    flat = np.cumsum(bends / bends.sum()) > z
    goes = np.array([False, *flat, True])
    return np.where(x >= x[order][~goes].min(), x, -_INF)  # ties of the last one stay


def typical64(t, x):
    p = softmax64(x)
    s = np.full_like(x, _INF)
    s[p > 0] = np.abs(-np.log(p[p > 0]) - entropy64(p))
    order = np.argsort(s, kind="stable")
    last = min(np.searchsorted(np.cumsum(p[order]), t), len(x) - 1)
    return np.where(s <= s[order][last] + 1e-12, x, -_INF)


def skew64(s, x):
    order = np.argsort(-x, kind="stable")
    p, power = softmax64(x)[order], np.exp(s)
    upto = np.cumsum(p)
    beyond = np.append(np.cumsum(p[::-1])[::-1][1:], 0)
    with np.errstate(divide="ignore"):
        below = np.diff(upto**power, prepend=0)
        above = -np.diff(-np.expm1(power * np.log1p(-beyond)), prepend=1)  # exact where q is near 1
        x[order] = np.log(np.where(upto < 0.5, below, above))
    return x


def expected(stage, logits, prompt=(), output=()):
    """The definition, one row, float64; filters give -inf where a token goes."""
    x = logits.astype(np.float64)
    match stage:
        case Temperature():
            return x / temperature64(stage, x)
        case TopK():
            return np.where(x >= np.sort(x)[::-1][min(stage.top_k, len(x)) - 1], x, -_INF)
        case TopP():
            p = softmax64(x)
            descending = np.sort(p)[::-1]
            last = min(np.searchsorted(np.cumsum(descending), stage.top_p), len(p) - 1)
            return np.where(p >= descending[last], x, -_INF)
        case MinP():
            p = softmax64(x)
            return np.where(p < stage.min_p * p.max(), -_INF, x)
        case TopNSigma():
            return np.where(x < x.max() - stage.nsigma * x[x > -_INF].std(), -_INF, x)
        case TopA():
            p = softmax64(x)
            return np.where((p < stage.top_a * p.max() ** 2) & (x < x.max()), -_INF, x)
        case Tfs():
            return tail_free64(stage.tfs, x)
        case EtaCutoff():
            p, e = softmax64(x), stage.eta_cutoff / 10000
            least = min(e, np.sqrt(e) * np.exp(-entropy64(p)))
            return np.where((p < least) & (x < x.max()), -_INF, x)
        case EpsilonCutoff():
            p = softmax64(x)
            return np.where((p < stage.epsilon_cutoff / 10000) & (x < x.max()), -_INF, x)
        case TypicalP():
            return typical64(stage.typical_p, x)
        case Quadratic(f, c):
            d = x[x > -_INF] - x.max()
            x[x > -_INF] = x.max() + f * (c - 1) / 2 * d**3 - f * (3 - c) / 2 * d**2
            return x
        case Xtc():
            p = softmax64(x)
            likely = (p >= stage.xtc_threshold) & (x > -_INF)
            goes = likely & (x > x[likely].min(initial=_INF))
            return x if goes[list(stage.spared)].any() else np.where(goes, -_INF, x)
        case Skew():
            return skew64(stage.skew, x)
        case Mirostat(mirostat_mode=1):
            return np.where(x >= np.sort(x)[::-1][mirostat_count(x, stage.limit) - 1], x, -_INF)
        case Mirostat():
            p = softmax64(x)
            return np.where((p < 2.0**-stage.limit) & (p < p.max()), -_INF, x)
        case AdaptiveP():
            distance = abs(softmax64(x) - stage.adaptive_target) / 0.3
            return np.where(x > -_INF, 5 - 10 * distance**2 / (1 + distance), -_INF)
        case LogitBias():
            for token, bias in stage.logit_bias.items():
                x[token] += bias
            return x
        case MinTokens():
            early = len(prompt) + len(output) < stage.first_end
            return banned(x, stage.end_tokens if early else ())
    return definition(stage, x, prompt, output)


def assert_same_kept(out, wanted, logits, slack=2e-6):
    """Equal, save for tokens at the very edge: rounding may put them on either side."""
    kept, due = out > -_INF, wanted > -_INF
    if not np.array_equal(kept, due):
        p = softmax64(logits.astype(np.float64))
        edge = p[due & (p > 0)].min()
        differing = p[kept != due]
        np.testing.assert_allclose(differing, edge, rtol=slack * 50, atol=0)
        # A set that differs by more than rounding differs in mass as well.
        assert differing.sum() < max(slack * len(p), 1.01 * edge)
    both = kept & due
    np.testing.assert_allclose(out[both], wanted[both], rtol=2e-6, atol=2e-5)


@pytest.mark.parametrize("stage", every_stage_at_work())
@pytest.mark.parametrize(("kind", "vocabulary"), _SHAPES)
def test_matches_its_definition(stage, kind, vocabulary):
    if vocabulary < 6 and isinstance(stage, LogitBias | MinTokens | NAMING):
        return
    logits = logits_of(kind, vocabulary)
    # Tokens recur within and across prompt and output; the third row has no output yet.
    tokens = torch.randint(0, vocabulary, (3, 60), generator=torch.Generator().manual_seed(1)) % 25
    tokens %= vocabulary
    lengths, prompts = [60, 31, 12], [20, 30, 12]
    out = run([stage] * 3, logits, tokens, prompts, lengths).numpy()
    for row in range(3):
        known = tokens[row].tolist()
        prompt, output = known[: prompts[row]], known[prompts[row] : lengths[row]]
        wanted = expected(stage, logits[row].numpy(), prompt, output)
        assert_same_kept(out[row], wanted, logits[row].numpy())


@pytest.mark.parametrize("vocabulary", [1000, 49152, 262144])
@pytest.mark.parametrize("spread", [0.01, 1.0, 3.0])
def test_top_p_over_flat_distributions_finds_the_exact_set(vocabulary, spread):
    """Beyond the first 256 tokens the set is found by bisection: no token too few or too many."""
    generator = torch.Generator().manual_seed(vocabulary)
    logits = spread * torch.randn(1, vocabulary, generator=generator)
    for mass in (0.5, 0.97):
        kept = run([TopP(mass)], logits)[0] > -_INF
        p = softmax64(logits[0].double().numpy())
        descending = np.cumsum(np.sort(p)[::-1])
        wanted = int(np.searchsorted(descending, mass)) + 1
        # float32 cannot tell sets apart whose mass differs by a few 1e-7.
        assert abs(int(kept.sum()) - wanted) <= max(1, 1e-6 / p[kept.numpy()].min()), mass


# Against others.


_WORDS = ((3,), (11, 12, 5), (9, 2))


@pytest.mark.parametrize(
    ("stage", "warper", "value"),
    [
        (Temperature(0.7), "TemperatureLogitsWarper", 0.7),
        (TopK(7), "TopKLogitsWarper", 7),
        (TopK(400), "TopKLogitsWarper", 400),
        (TopP(0.2), "TopPLogitsWarper", 0.2),
        (TopP(0.9), "TopPLogitsWarper", 0.9),
        (MinP(0.02), "MinPLogitsWarper", 0.02),
        (TypicalP(0.4), "TypicalLogitsWarper", 0.4),
        (EpsilonCutoff(50), "EpsilonLogitsWarper", 0.005),
        (EtaCutoff(50), "EtaLogitsWarper", 0.005),
        (Penalties(1.7), "RepetitionPenaltyLogitsProcessor", 1.7),
        (Penalties(0.6), "RepetitionPenaltyLogitsProcessor", 0.6),
        (NoRepeatNgram(1), "NoRepeatNGramLogitsProcessor", 1),
        (NoRepeatNgram(2), "NoRepeatNGramLogitsProcessor", 2),
        (NoRepeatNgram(3), "NoRepeatNGramLogitsProcessor", 3),
        (CustomTokenBans((7, 0, 9)), "SuppressTokensLogitsProcessor", [7, 0, 9]),
        (BanEosToken(True, (4,)), "SuppressTokensLogitsProcessor", [4]),
        (BadWords(("x",), _WORDS), "NoBadWordsLogitsProcessor", [[*word] for word in _WORDS]),
        (
            LogitBias({3: 4.0, 8: -50.0}),
            "SequenceBiasLogitsProcessor",
            [[[3], 4.0], [[8], -50.0]],
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("kind", "vocabulary"), [("random", 300), ("holes", 2000), ("peaked", 9001)]
)
def test_agrees_with_transformers(stage, warper, value, kind, vocabulary):
    transformers = importlib.import_module("transformers")
    logits = logits_of(kind, vocabulary)
    tokens = torch.randint(0, vocabulary, (3, 40), generator=torch.Generator().manual_seed(2))
    tokens[1, -2:] = torch.tensor(_WORDS[1][:2])
    wanted = getattr(transformers, warper)(value)(tokens, logits.clone()).numpy()
    out = run([stage] * 3, logits, tokens, [1] * 3).numpy()
    for row in range(3):
        assert_same_kept(out[row], wanted[row], logits[row].numpy())


@pytest.mark.parametrize("length", [30, 39, 40, 41])
def test_places_and_vocabularies_agree_with_transformers(length):
    """Bans that depend on how long the output is, and all tokens but some."""
    transformers = importlib.import_module("transformers")
    prompt, logits = 30, logits_of("holes", 2000)
    tokens = torch.randint(0, 2000, (3, length))
    for stage, warper in (
        (MinTokens(40, (2, 5)), transformers.MinLengthLogitsProcessor(40, [2, 5])),
        (
            MinTokens(prompt + 10, (2,)),
            transformers.MinNewTokensLengthLogitsProcessor(prompt, 10, [2]),
        ),
        (
            TokenBanRanges((((1, 6), 10, 1),)),
            transformers.SuppressTokensAtBeginLogitsProcessor([1, 6], 40),
        ),
        (
            AllowedTokenIds((*range(50), 1999)),
            transformers.PrefixConstrainedLogitsProcessor(lambda *_: [*range(50), 1999], 1),
        ),
    ):
        wanted = warper(tokens, logits.clone())
        assert torch.equal(run([stage] * 3, logits, tokens, [prompt] * 3), wanted), stage


def golden_cases():
    with np.load(Path(__file__).parent / "golden" / "samplers.npz") as file:
        meta, logits, output = json.loads(bytes(file["meta"])), file["logits"], file["output"]
    known = {declared.name: declared.stage for declared in stage_fields()}
    for case, before, after in zip(meta, logits, output, strict=True):
        kinds = {known.get(name) for name in case["params"]}
        if len(kinds) == 1 and None not in kinds:
            kind = kinds.pop()
            mode = {"mirostat_mode": 2} if kind is Mirostat else {}
            unit = 1e4 if case["sampler"].endswith("_raw") else 1
            values = {
                name: tuple(of) if isinstance(of, list) else unit * of
                for name, of in case["params"].items()
            }
            stage = kind(**mode, **values)
            yield pytest.param(
                stage, case, before, after, id=f"{case['engine']}-{stage.name()}-{case['vector']}"
            )


@pytest.mark.parametrize(("stage", "case", "before", "after"), list(golden_cases()))
def test_agrees_with_golden_vectors(stage, case, before, after):
    history = torch.tensor([case["history"] or [0]])
    # llama.cpp counts the whole history for every penalty: to us, output after a prompt of nothing.
    prompts = [0] if case["engine"] == "llama.cpp" else None
    out = run([stage], torch.from_numpy(before)[None], history, prompts)[0].numpy()
    kept, due = out > -_INF, after > -_INF
    # Of equal tokens at the edge we keep all, the others only as many as they count.
    extra = before[kept & ~due]
    assert not (due & ~kept).any()
    assert (extra == before[due].min()).all()
    rounding = 2e-5 if case["sampler"] == "dynatemp" else 2e-6  # its entropy is summed in float32
    np.testing.assert_allclose(out[due], after[due], rtol=rounding, atol=2e-5)


def test_there_are_golden_vectors_of_both_engines():
    ids = {case.id for case in golden_cases()}
    assert len(list(golden_cases())) == 132, "some are of no stage"
    for stage in ("top_k", "top_p", "min_p", "penalties", "typical_p"):
        for engine in ("llama.cpp", "transformers"):
            assert any(i.startswith(f"{engine}-{stage}") for i in ids), (engine, stage)
    for case in ("llama.cpp-top_n_sigma", "llama.cpp-temperature", "llama.cpp-dry"):
        assert any(i.startswith(case) for i in ids), case
    for case in ("eta_cutoff", "epsilon_cutoff", "no_repeat_ngram"):
        assert any(i.startswith(f"transformers-{case}") for i in ids), case
