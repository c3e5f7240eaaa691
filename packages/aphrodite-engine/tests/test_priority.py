"""The order of stages: what requests may say of it, and rows of different orders together."""

import pytest
import torch
from aphrodite_engine.errors import RequestError
from aphrodite_engine.sampling.batch import passes_of
from aphrodite_engine.sampling.catalog import places, stage_fields, stages, stages_from
from aphrodite_engine.sampling.fields import fields_of
from aphrodite_engine.sampling.row import make_row
from aphrodite_engine.sampling.sampler import Sampler, Standing
from aphrodite_engine.sampling.stages.logit_bias import LogitBias
from aphrodite_engine.sampling.stages.min_p import MinP
from aphrodite_engine.sampling.stages.penalties import Penalties
from aphrodite_engine.sampling.stages.temperature import Temperature
from aphrodite_engine.sampling.stages.top_k import TopK
from aphrodite_engine.sampling.stages.top_p import TopP
from aphrodite_kernels.backends import reference
from hypothesis import given
from hypothesis import strategies as st
from row_starts import row_start

_CPU = torch.device("cpu")
_FIELDS = {"repetition_penalty": 1.3, "temperature": 0.5, "top_k": 5, "top_p": 0.9, "min_p": 0.1}
_DEFAULT = ["penalties", "temperature", "top_k", "top_p", "min_p"]
_WIRE = [stage for stage in stages() if stage.wire]


def order_of(**fields):
    return [stage.name() for stage in stages_from({**_FIELDS, **fields})]


def test_the_default_order():
    """That of the engines of this name so far; bans and biases first, what they lack at the end."""
    assert [stage.name() for stage in stages()] == [
        *("min_tokens", "allowed_token_ids", "custom_token_bans", "ban_eos_token"),
        *("token_ban_ranges", "bad_words", "banned_strings", "logit_bias"),
        *("dry", "penalties", "no_repeat_ngram", "temperature", "top_n_sigma", "top_k", "top_p"),
        *("top_a", "min_p", "tfs", "eta_cutoff", "epsilon_cutoff", "typical_p", "quadratic"),
        *("xtc", "skew", "mirostat", "adaptive_p"),
    ]


@pytest.mark.parametrize("off", [None, "", [], {}, ()])
def test_no_order_is_the_default(off):
    assert order_of(sampler_priority=off, temperature_last=None) == _DEFAULT


@pytest.mark.parametrize(
    ("entries", "order"),
    [
        (["min_p", "temperature"], ["penalties", "min_p", "top_k", "top_p", "temperature"]),
        (["temperature"], _DEFAULT),
        ([2, 0, 5, 6], ["min_p", "top_k", "top_p", "temperature", "penalties"]),
        (["TOP_P_TOP_K", "Temperature"], ["penalties", "top_k", "top_p", "temperature", "min_p"]),
        (["top_p", 0], ["penalties", "temperature", "top_p", "top_k", "min_p"]),
        (["min_p", "rep_pen"], ["min_p", "temperature", "top_k", "top_p", "penalties"]),
        (["xtc", "min_p", 13], None),
    ],
)
def test_named_stages_share_out_their_places(entries, order):
    if order:
        assert order_of(sampler_priority=entries) == order
    else:
        assert sorted(order_of(sampler_priority=entries)) == sorted(_DEFAULT)


@pytest.mark.parametrize(
    ("kobolds", "names"),
    [
        ([6, 0, 1, 3, 4, 2, 5], ["penalties", "top_k", "top_p", "min_p", "temperature"]),
        ([2, 0], ["penalties", "temperature", "top_p", "min_p", "top_k"]),
        ([5, "min_p", 6], ["temperature", "top_k", "top_p", "min_p", "penalties"]),
    ],
)
def test_an_order_by_its_other_name_has_kobolds_numbers(kobolds, names):
    assert order_of(sampler_order=kobolds) == names
    assert order_of(sampler_order=names, sampler_priority=names) == names


def test_both_names_agree_if_they_mean_the_same():
    meant = ["temperature", "quadratic", "top_k"]
    assert order_of(sampler_order=[5, 0], sampler_priority=meant) == order_of(sampler_order=[5, 0])


def test_what_clients_send_is_understood_whole():
    names = [
        *("dry", "penalties", "no_repeat_ngram", "temperature", "top_nsigma", "top_p_top_k"),
        *("top_a", "min_p", "tfs", "eta_cutoff", "epsilon_cutoff", "typical_p", "quadratic", "xtc"),
    ]
    assert order_of(sampler_priority=names) == _DEFAULT
    webui = [
        *("repetition_penalty", "presence_penalty", "frequency_penalty", "dry", "temperature"),
        *("dynamic_temperature", "quadratic_sampling", "top_n_sigma", "top_k", "top_p"),
        *("typical_p", "epsilon_cutoff", "eta_cutoff", "tfs", "top_a", "min_p", "adaptive_p"),
        *("mirostat", "xtc", "encoder_repetition_penalty", "no_repeat_ngram"),
    ]
    assert order_of(sampler_priority=webui) == _DEFAULT
    assert order_of(sampler_priority=list(range(14))) == [
        *("top_k", "top_p", "min_p", "temperature", "penalties")
    ]


@given(st.permutations(_WIRE), st.integers(1, len(_WIRE)))
def test_any_order_is_kept_and_the_rest_stay(stages_in_some_order, count):
    """Called by a field of each: a field belongs to one stage, a name may stand for two."""
    named = stages_in_some_order[:count]
    entries = [fields_of(stage)[0].name for stage in named]
    arranged = places().arrange({"sampler_priority": entries}, [kind() for kind in _WIRE])
    found = [type(stage) for stage in arranged]
    assert [kind for kind in found if kind in named] == named
    assert all(found[at] is kind for at, kind in enumerate(_WIRE) if kind not in named)


@pytest.mark.parametrize("declared", stage_fields(), ids=lambda each: each.name)
def test_fields_and_aliases_name_their_stage(declared):
    for name in (declared.stage.name(), declared.name, *declared.aliases):
        assert order_of(sampler_priority=[name])


def test_temperature_last():
    assert order_of(temperature_last=True)[-1] == "temperature"
    assert order_of(temperature_last=False) == _DEFAULT
    assert order_of(temperature_last=True, sampler_priority=["min_p"]) == _DEFAULT


@pytest.mark.parametrize(
    ("fields", "name", "message"),
    [
        ({"sampler_priority": ["nope"]}, "sampler_priority", "names no sampler 'nope'; samplers"),
        ({"sampler_priority": [14]}, "sampler_priority", "no sampler 14; .* 13 \\(xtc\\)"),
        ({"sampler_order": [7]}, "sampler_order", "names no sampler 7; .* 6 \\(penalties\\)"),
        ({"sampler_priority": ["spared"]}, "sampler_priority", "names no sampler 'spared'"),
        ({"sampler_order": [-1]}, "sampler_order", "names no sampler -1"),
        ({"sampler_order": [True]}, "sampler_order", "holds names or numbers, found True"),
        ({"sampler_order": [[5]]}, "sampler_order", "holds names or numbers, found \\[5\\]"),
        ({"sampler_order": "temperature"}, "sampler_order", "must be a list"),
        ({"sampler_order": [5, 2, 5]}, "sampler_order", "names 5 twice"),
        ({"sampler_order": [5], "sampler_priority": [2]}, "sampler_order", "same parameter"),
        ({"temperature_last": "yes"}, "temperature_last", "must be true or false, found 'yes'"),
    ],
)
def test_bad_orders_are_refused_by_name(fields, name, message):
    with pytest.raises(RequestError, match=message) as caught:
        stages_from(fields)
    assert caught.value.field == name


# Rows of different orders together.


def kinds_of(*chains):
    return [step.stage.name() for step in passes_of(chains, _CPU)]


def test_rows_in_default_order_take_each_stage_once():
    whole = stages_from(_FIELDS)
    assert kinds_of(whole, whole[1:], whole[::2], whole[3:], ()) == _DEFAULT


def test_rows_of_other_orders_share_what_they_can():
    warm, top_k, top_p, min_p = Temperature(0.5), TopK(5), TopP(0.9), MinP(0.1)
    assert kinds_of([warm, top_p, min_p], [top_p, min_p, warm]) == [
        *("temperature", "top_p", "min_p", "temperature")
    ]
    assert kinds_of([top_p, top_k], [top_k, warm]) == ["top_p", "top_k", "temperature"]


@given(st.lists(st.permutations([Temperature(0.5), TopK(5), TopP(0.9), MinP(0.1)]), max_size=6))
def test_every_row_keeps_its_own_order(chains):
    passed = [[] for _ in chains]
    for step in passes_of(chains, _CPU):
        for place in step.members:
            passed[place].append(step.stage)
    assert passed == [[type(stage) for stage in chain] for chain in chains]


def start(row, **fields):
    return row_start(row, fields, seed=row)


def test_the_order_decides_the_token():
    """Of two rows at once: a penalty before or behind a filter that leaves one token."""
    sampler = Sampler(reference.create(_CPU, threads=1, dtype=torch.float32))
    fields = {"top_k": 1, "logit_bias": {"2": 50}}
    sampler.start(start(0, **fields))
    sampler.start(start(1, **fields, sampler_priority=["top_k", "logit_bias"]))
    logits = torch.tensor([[0.0, 3.0, 1.0]] * 2)
    standing = Standing([0, 1], [1, 1], torch.tensor([1, 1], dtype=torch.int32))
    history = torch.zeros(4, 4, dtype=torch.int32)
    assert sampler.sample(logits, standing, history).tokens.tolist() == [2, 1]


def test_greedy_rows_keep_a_filter_that_a_penalty_follows():
    """A filter keeps the likeliest token, but what comes behind it may prefer another."""
    fields = {"top_k": 1, "logit_bias": {"2": 50}, "temperature": 0}
    order = ["top_k", "logit_bias", "temperature"]
    assert make_row(start(0, **fields)).chain == (LogitBias({2: 50}),)
    chain = make_row(start(0, **fields, sampler_priority=order)).chain
    assert chain == (TopK(1), LogitBias({2: 50}))
    late = make_row(start(0, top_k=1, temperature=0, rep_pen=2, sampler_order=[6, 0, 5])).chain
    assert late == (Penalties(2),)
