"""What SillyTavern 1.19 sends for each of its backends: every field arrives as a stage.

The bodies were recorded behind its user interface, at settings that switch every sampler on; only
the prompts are shortened. "eos" has its texts in the user's own words and end-of-text banned.
"""

import json
from pathlib import Path

import msgspec
import pytest
from aphrodite_server.fields import HARMLESS

HEADER = "x-aphrodite-ignored-fields"
RECORDED = json.loads((Path(__file__).parent / "sillytavern_bodies.json").read_text())
BREAKERS = {"aphrodite": ("\n", ":", '"'), "ooba": ("\n", ":", '"'), "koboldcpp": ("\\n", ":", '"')}
"""Of "eos"; KoboldCpp's are cut by the client itself, which knows no escapes."""

# Stages by the settings that were chosen, as every backend that sends them must make them.
COMMON = {
    "temperature": {"temperature": 1.2},
    "top_p": {"top_p": 0.95},
    "top_k": {"top_k": 60},
    "min_p": {"min_p": 0.02},
    "penalties": {"repetition_penalty": 1.07, "presence_penalty": 0.2, "frequency_penalty": 0.1},
}
WHOLE = {
    **COMMON,
    "typical_p": {"typical_p": 0.98},
    "top_a": {"top_a": 0.05},
    "tfs": {"tfs": 0.99},
    "skew": {"skew": 0.1},
    "top_n_sigma": {"nsigma": 3.5},
    "quadratic": {"smoothing_factor": 0.2, "smoothing_curve": 1.5},
    "xtc": {"xtc_probability": 0.5},
    "dry": {"dry_multiplier": 0.8, "dry_range": 300},
    "custom_token_bans": {"custom_token_bans": (11, 42)},
    "banned_strings": {"banned_strings": ("the forest", "shiver")},
}
CUTOFFS = {"epsilon_cutoff": {"epsilon_cutoff": 3}, "eta_cutoff": {"eta_cutoff": 4}}
NGRAM = {"no_repeat_ngram": {"no_repeat_ngram_size": 12}}
EXPECTED = {
    "aphrodite": {**WHOLE, **CUTOFFS, **NGRAM},
    "ooba": {**WHOLE, **CUTOFFS, **NGRAM},
    "koboldcpp": WHOLE,
    "vllm": COMMON,
    "generic": {
        "temperature": {"temperature": 1.2},
        "top_p": {"top_p": 0.95},
        "penalties": {"presence_penalty": 0.2, "frequency_penalty": 0.1},
    },
    "kobold": {
        **{name: WHOLE[name] for name in ("temperature", "top_p", "top_k", "min_p", "top_a")},
        **{name: WHOLE[name] for name in ("typical_p", "tfs")},
        "penalties": {"repetition_penalty": 1.07, "rep_pen_range": 512, "rep_pen_slope": 0.7},
    },
}
RANGED = {"ooba", "koboldcpp"}
"""They send a range of the penalties, too."""
REPEATING = frozenset(
    {
        *("min_length", "n_predict", "n_probs", "num_ctx", "num_predict", "repeat_last_n"),
        *("repeat_penalty", "trim_stop"),
    }
)
"""Nobody's here, and no loss: each says again what another field says, or what is so anyway."""
DYNAMIC = {
    "temperature": 1.1,
    "dynatemp_min": 0.6,
    "dynatemp_max": 1.6,
    "dynatemp_range": 0.5,
    "dynatemp_exponent": 1.2,
}
MIROSTAT = {"mirostat_mode": 2, "mirostat_tau": 4, "mirostat_eta": 0.2}


def expected(backend, settings):
    """Stages and the fields of each that are not at their defaults."""
    stages = dict(EXPECTED[backend])
    if backend in RANGED:
        stages["penalties"] = {**stages["penalties"], "rep_pen_range": 512}
    if settings == "dynatemp":
        stages["temperature"] = DYNAMIC
    elif settings == "mirostat":
        stages["mirostat"] = MIROSTAT
    elif settings == "eos":
        stages["ban_eos_token"] = {"ban_eos_token": True}
        if backend in BREAKERS:
            stages["dry"] = {**stages["dry"], "dry_sequence_breakers": BREAKERS[backend]}
    return stages


@pytest.fixture
def params(call, engine):
    """What the engine is asked for by a recorded request, and the answer."""

    def send(recorded):
        response = call(recorded["path"], recorded["body"])
        assert response.status_code == 200, response.text
        return engine.seen[-1][1], response

    return send


@pytest.mark.parametrize(
    "recorded", RECORDED, ids=lambda one: f"{one['backend']}-{one['settings']}"
)
def test_every_field_arrives_as_a_stage(params, recorded):
    asked, response = params(recorded)
    found = {stage.name(): dict(stage.given) for stage in asked.stages}
    assert found == expected(recorded["backend"], recorded["settings"])
    assert (asked.max_tokens, asked.seed) == (24, 7)
    assert asked.stop == ("\nUser:", "\n***")
    assert asked.min_tokens == recorded["body"].get("min_tokens", 0)
    assert asked.ignore_eos is recorded["body"].get("ignore_eos", False)
    assert asked.logprobs == recorded["body"].get("logprobs")
    ignored = set(response.headers.get(HEADER, "").split(", ")) - {""}
    assert not ignored & {name for stage in found.values() for name in stage}
    assert ignored <= HARMLESS | REPEATING


@pytest.mark.parametrize(
    ("backend", "order"),
    [
        ("aphrodite", ["dry", "penalties", "temperature", "top_k", "top_p", "xtc", "skew"]),
        ("ooba", ["penalties", "dry", "temperature", "quadratic", "top_k", "top_p", "xtc"]),
        ("koboldcpp", ["dry", "penalties", "top_k", "tfs", "top_p", "temperature", "quadratic"]),
        ("kobold", ["penalties", "top_k", "top_a", "top_p", "min_p", "tfs", "temperature"]),
    ],
)
def test_stages_stand_in_the_order_of_the_client(params, backend, order):
    asked, _ = params(next(one for one in RECORDED if one["backend"] == backend))
    names = [stage.name() for stage in asked.stages]
    assert [name for name in names if name in order] == order


def test_temperature_comes_last_where_the_client_wants_it_so(params):
    recorded = next(one for one in RECORDED if one["body"].get("temperature_last"))
    assert recorded["backend"] == "aphrodite"
    names = [stage.name() for stage in params(recorded)[0].stages]
    assert names.index("temperature") == names.index("xtc") + 1


def test_parameters_cross_to_the_engine(params, engine):
    for recorded in RECORDED:
        asked, _ = params(recorded)
        sent = msgspec.msgpack.encode(asked.resolve(engine.tokenizer))
        assert msgspec.msgpack.decode(sent, type=type(asked)) == asked.resolve(engine.tokenizer)
