"""From wire fields to stages and across a process boundary; what schemas are made from."""

import subprocess
import sys
from typing import get_args, get_origin

import msgspec
import pytest
from annotated_types import Ge, Gt, Le
from aphrodite_engine.errors import RequestError
from aphrodite_engine.sampling.catalog import stage_fields, stages, stages_from
from aphrodite_engine.sampling.fields import fields_of
from aphrodite_engine.sampling.params import SamplingParams
from aphrodite_engine.sampling.stages.epsilon_cutoff import EpsilonCutoff
from aphrodite_engine.sampling.stages.logit_bias import LogitBias
from aphrodite_engine.sampling.stages.penalties import Penalties
from aphrodite_engine.sampling.stages.temperature import Temperature
from aphrodite_engine.sampling.stages.top_k import TopK
from aphrodite_engine.sampling.stages.top_n_sigma import TopNSigma
from aphrodite_engine.sampling.stages.top_p import TopP
from aphrodite_engine.sampling.stages.typical_p import TypicalP
from aphrodite_engine.sampling.stages.xtc import Xtc
from hypothesis import given
from hypothesis import strategies as st


def values_of(field):
    """Values within the bounds of a field, as JSON has them."""
    low, high = 0, 100
    for bound in field.bounds:
        match bound:
            case Ge(limit):
                low = limit
            case Gt(limit):
                low = limit + 1e-3
            case Le(limit):
                high = limit
    if field.type is bool:
        return st.booleans()
    if field.type is int:
        return st.integers(low, high)
    if field.type is float:
        return st.floats(low, high)
    if get_origin(field.type) is dict:
        return st.dictionaries(st.integers(0, 9).map(str), st.floats(-100, 100), max_size=3)
    return st.lists(items_of(get_args(field.type)[0]), max_size=3)


def items_of(kind):
    """Items of a list, as JSON has them."""
    if kind is str:
        return st.text(st.sampled_from("ab\n"), min_size=1)
    if get_origin(kind) is not tuple:
        return st.integers(0, 9)
    if get_args(kind)[-1] is Ellipsis:
        return st.lists(items_of(get_args(kind)[0]), max_size=3)
    return st.tuples(*map(items_of, get_args(kind))).map(list)


def typed(value):
    """A value as stages have it."""
    if isinstance(value, dict):
        return {int(k): v for k, v in value.items()}
    return tuple(map(typed, value)) if isinstance(value, list) else value


def given_to(stage, fields):
    """Those fields that are a stage's."""
    names = {field.name for field in fields_of(stage)}
    return {
        name: typed(value) for name, value in fields.items() if name in names and value is not None
    }


_WIRE = st.fixed_dictionaries(
    {}, optional={each.name: st.none() | values_of(each.field) for each in stage_fields()}
)


@given(_WIRE)
def test_valid_fields_make_active_stages_in_default_order(fields):
    made = stages_from({**fields, "model": "x", "unknown": {}})
    assert all(stage.active for stage in made)
    orders = [stage.order for stage in made]
    assert orders == sorted(set(orders))
    held = {f.name: getattr(s, f.name) for s in made for f in fields_of(type(s))}
    for each in stage_fields():
        value = fields.get(each.name)
        if value and each.name in held:
            assert held[each.name] == typed(value)
        elif each.name not in held and value not in (None, {}, []):
            assert not each.stage(**given_to(each.stage, fields)).active


@given(_WIRE)
def test_parameters_cross_a_process_boundary(fields):
    params = SamplingParams(stages=stages_from(fields), seed=2**64 - 1)
    sent = msgspec.msgpack.encode(params)
    assert msgspec.msgpack.decode(sent, type=SamplingParams) == params


@given(_WIRE)
def test_defaults_make_no_stage(fields):
    defaults = {each.name: each.field.default for each in stage_fields()}
    assert stages_from(defaults) == ()
    assert stages_from({**defaults, **fields}) == stages_from(
        {name: value for name, value in fields.items() if value is not None}
    )


@pytest.mark.parametrize("off", [None, "", [], {}])
@pytest.mark.parametrize("name", [each.name for each in stage_fields()])
def test_empty_means_off(name, off):
    assert stages_from({name: off}) == ()


_DYNAMIC = Temperature(dynatemp_min=0.5, dynatemp_max=2)


@pytest.mark.parametrize(
    ("fields", "made"),
    [
        ({"top_k": -1}, ()),
        ({"top_k": 0}, ()),
        ({"top_k": 40}, (TopK(40),)),
        ({"top_p": 1}, ()),
        ({"top_p": 0.5, "temperature": 0}, (Temperature(0), TopP(0.5))),
        ({"rep_pen": 1.1}, (Penalties(1.1),)),
        ({"rep_pen": 1.1, "repetition_penalty": 1.1}, (Penalties(1.1),)),
        ({"rep_pen": None, "repetition_penalty": 1.1}, (Penalties(1.1),)),
        ({"logit_bias": {"50256": -100}}, (LogitBias({50256: -100}),)),
        ({"typical": 0.5}, (TypicalP(0.5),)),
        ({"eps_cutoff": 3}, (EpsilonCutoff(3),)),
        ({"top_n_sigma": 1.5, "nsigma": 1.5}, (TopNSigma(1.5),)),
        ({"top_n_sigma": -1}, ()),
        ({"smoothing_curve": 2}, ()),
        ({"xtc_threshold": 0.2}, ()),
        ({"xtc_probability": 0.5, "xtc_threshold": 0.51}, ()),
        ({"xtc_probability": 0.5}, (Xtc(0.5),)),
        ({"dynatemp_exponent": 3}, ()),
        ({"dynatemp_low": 0.5, "dynatemp_max": 2}, (_DYNAMIC,)),
        ({"dynatemp_low": 1, "dynatemp_high": 1.5, "dynamic_temperature": False}, ()),
    ],
)
def test_wire_spellings(fields, made):
    assert stages_from(fields) == made


@pytest.mark.parametrize(
    ("fields", "name", "message"),
    [
        ({"top_p": 0}, "top_p", "top_p must be above 0 and at most 1, found 0"),
        ({"top_p": 1.5}, "top_p", "top_p must be above 0 and at most 1, found 1.5"),
        ({"top_k": -2}, "top_k", "top_k must be at least 0, found -2"),
        ({"top_k": 1.5}, "top_k", "top_k must be an integer, at least 0, found 1.5"),
        ({"top_k": True}, "top_k", "top_k must be an integer, at least 0, found True"),
        (
            {"min_p": "few"},
            "min_p",
            "min_p must be a number, at least 0 and at most 1, found 'few'",
        ),
        (
            {"temperature": float("inf")},
            "temperature",
            "temperature must be a finite number, found inf",
        ),
        ({"rep_pen": 0}, "rep_pen", "rep_pen must be above 0, found 0"),
        (
            {"xtc_probability": 1.5},
            "xtc_probability",
            "xtc_probability must be at least 0 and at most 1, found 1.5",
        ),
        ({"tfs": 0}, "tfs", "tfs must be above 0 and at most 1, found 0"),
        ({"skew": 30}, "skew", "skew must be at least -20 and at most 20, found 30"),
        ({"eps_cutoff": -3}, "eps_cutoff", "eps_cutoff must be at least 0, found -3"),
        ({"top_n_sigma": -2}, "top_n_sigma", "top_n_sigma must be at least 0, found -2"),
        ({"smoothing_curve": 0}, "smoothing_curve", "smoothing_curve must be at least 1, found 0"),
        (
            {"smoothing_factor": 1e20, "smoothing_curve": 1e20},
            "smoothing_factor",
            "what follows from smoothing_factor 1e+20 and smoothing_curve 1e+20 must fit in 32 bits"
            ": up to 3.4e+38",
        ),
        (
            {"temperature": 3e38, "dynatemp_range": 2e38},
            "temperature",
            "what follows from temperature 3e+38 and dynatemp_range 2e+38 must fit in 32 bits"
            ": up to 3.4e+38",
        ),
        (
            {"logit_bias": {"7": 101}},
            "logit_bias",
            "logit_bias[7] must be at least -100 and at most 100, found 101.0",
        ),
        (
            {"logit_bias": {"-7": 1}},
            "logit_bias",
            "a key of logit_bias must be at least 0, found -7",
        ),
        (
            {"repetition_penalty": 1.2, "rep_pen": 1.1},
            "rep_pen",
            "repetition_penalty and rep_pen are the same parameter, found 1.2 and 1.1; send one",
        ),
    ],
)
def test_bad_values_are_named(fields, name, message):
    with pytest.raises(RequestError) as caught:
        stages_from(fields)
    assert caught.value.field == name
    assert str(caught.value).removesuffix(".0") == message.removesuffix(".0")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n": 0}, "n must be at least 1"),
        ({"max_tokens": -1}, "max_tokens must be at least 0"),
        ({"prompt_logprobs": 21}, "prompt_logprobs must be at least 0 and at most 20, found 21"),
        ({"seed": 2**64}, "seed must be"),
        ({"stop_token_ids": (3, -1)}, r"stop_token_ids\[1\] must be at least 0, found -1"),
        ({"stop": ("a", 3)}, r"stop\[1\] must be a string, found 3"),
    ],
)
def test_limits_are_checked_as_stages_are(fields, message):
    with pytest.raises(RequestError, match=message) as caught:
        SamplingParams(**fields)
    assert caught.value.field == next(iter(fields))


def test_no_name_is_declared_twice():
    names = [name for each in stage_fields() for name in (each.name, *each.aliases)]
    names += [field.name for field in fields_of(SamplingParams)]
    assert len(names) == len(set(names))
    assert not {"type"} & set(names)  # msgspec's tag


def test_fields_of_limits_are_documented():
    docs = {field.name: field.doc for field in fields_of(SamplingParams)}
    assert docs["seed"] == "64-bit; None: drawn at random."
    assert docs["n"] == "Completions of the prompt, each with draws of its own."


def test_a_stage_may_be_imported_first():
    """Discovery finds every stage, whichever module a process imports first."""
    code = (
        f"import {Temperature.__module__}\n"
        "from aphrodite_engine.sampling.catalog import stages\n"
        "print(*(stage.name() for stage in stages()))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert out.stdout.split() == [stage.name() for stage in stages()]
