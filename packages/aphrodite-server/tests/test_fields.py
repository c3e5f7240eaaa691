"""Fields that requests bring besides the declared ones."""

import json
import logging
from pathlib import Path

import pytest
from aphrodite_engine.sampling.catalog import parameters
from aphrodite_server.app import create_app
from aphrodite_server.fields import HARMLESS, judge
from aphrodite_server.settings import Settings

PATH = "/v1/completions"
HEADER = "x-aphrodite-ignored-fields"

# What SillyTavern 1.19 sends to a server of type "Aphrodite" when its samplers are off.
SILLYTAVERN = json.loads((Path(__file__).parent / "sillytavern.json").read_text())


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_sillytavern(engine, post, strict, stream):
    app = create_app(engine, Settings(strict_fields=strict))
    body = {**SILLYTAVERN, "stream": True} if stream else SILLYTAVERN
    response = post(app, PATH, body)
    assert response.status_code == 200, response.text
    ignored = set(response.headers[HEADER].split(", "))
    assert {"api_type", "api_server", "truncation_length", "max_tokens_second"} <= ignored
    assert not ignored & {"temperature", "stopping_strings", "dry_multiplier", "guided_json"}
    params = engine.seen[0][1]
    assert params.stages == ()
    assert (params.max_tokens, params.seed, params.stop) == (24, 7, ("\nUser:",))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("guided_json", {"type": "object"}),
        ("guided_grammar", "root ::= x"),
        ("response_format", {"type": "json_object"}),
        ("tools", [{"type": "function"}]),
        ("tool_choice", "required"),
        ("negative_prompt", "dull"),
        ("suffix", "the end"),
        ("guidance_scale", 1.5),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(call, name, value):
    assert name not in parameters(), "a stage declares it now: take it out of this test"
    response = call(PATH, {"prompt": "a", name: value})
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == name
    assert name in error["message"]


@pytest.mark.parametrize(
    "extra",
    [
        {"best_of": 1},
        {"best_of": 2, "n": 2},
        {"response_format": {"type": "text"}},
        {"tools": [], "tool_choice": "auto"},
        {"tools": None, "dry_multiplier": None, "nobody_knows": None},
        {"top_n_sigma": -1},
        {"suffix": "", "guidance_scale": 1},
        {"wibble": "", "n": "", "min_tokens": [], "stream_options": {}, "model": "", "echo": ""},
    ],
)
def test_off_values_are_silent(call, extra):
    response = call(PATH, {"prompt": "a", **extra})
    assert response.status_code == 200, response.text
    assert HEADER not in response.headers


@pytest.mark.parametrize("name", sorted(HARMLESS))
def test_harmless_fields_are_reported(name):
    assert judge({name: {"any": "thing"}}).harmless == (name,)


def test_unknown_fields_are_reported_and_logged_once(call, caplog):
    with caplog.at_level(logging.WARNING, "aphrodite_server"):
        for _ in range(2):
            response = call(PATH, {"prompt": "a", "wibble": 1, "ünï, x\n": 2, "user": "me"})
            names = response.headers[HEADER].split(", ")
            assert names == ["user", "wibble", "%C3%BCn%C3%AF%2C%20x%0A"]
    assert [record.message.count("wibble") for record in caplog.records] == [0, 1, 0]


def test_strict_server_refuses_unknown_fields(engine, post):
    app = create_app(engine, Settings(strict_fields=True))
    response = post(app, PATH, {"prompt": "a", "wibble": 1})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "wibble"
    assert post(app, PATH, {"prompt": "a", "user": "me"}).status_code == 200


KOBOLD = "/api/v1/generate"


@pytest.mark.parametrize("nothing", [None, "", [], {}])
@pytest.mark.parametrize(
    ("path", "name", "alias", "value"),
    [
        (PATH, "min_p", "min_p", None),
        (PATH, "temperature_last", "temperature_last", None),
        (PATH, "repetition_penalty", "rep_pen", 1.2),
        (PATH, "sampler_priority", "sampler_order", ["min_p"]),
        (PATH, "max_tokens", "max_new_tokens", 3),
        (PATH, "stop", "stopping_strings", ["x"]),
        (KOBOLD, "max_length", "max_tokens", 3),
        (KOBOLD, "stop_sequence", "stop", ["x"]),
        (KOBOLD, "rep_pen", "repetition_penalty", 1.2),
    ],
)
def test_an_empty_value_is_as_good_as_none(call, engine, path, name, alias, value, nothing):
    """Beside its other name, in both directions, it changes nothing of what that says."""
    asked = {"prompt": "a", "seed": 1} if value is None else {"prompt": "a", "seed": 1, name: value}
    assert call(path, asked).status_code == 200
    wanted = engine.seen[-1][1]
    for fields in ({name: value, alias: nothing}, {name: nothing, alias: value}):
        response = call(path, {"prompt": "a", "seed": 1, **fields})
        assert response.status_code == 200, response.text
        assert engine.seen[-1][1] == wanted


@pytest.mark.parametrize(
    ("name", "alias", "values"),
    [("max_tokens", "max_new_tokens", (5, 6)), ("stop", "stopping_strings", (["a"], ["b"]))],
)
def test_aliases_must_agree(call, name, alias, values):
    assert call(PATH, {"prompt": "a", name: values[0], alias: values[0]}).status_code == 200
    response = call(PATH, {"prompt": "a", name: values[0], alias: values[1]})
    assert response.status_code == 400
    assert name in response.json()["error"]["message"]
    assert alias in response.json()["error"]["message"]


def test_samplers_reach_the_engine(call, engine):
    call(PATH, {"prompt": "a", "temperature": 0.5, "min_p": 0.1, "logit_bias": {"65": 2}})
    names = {stage.name() for stage in engine.seen[0][1].stages}
    assert names == {"temperature", "min_p", "logit_bias"}


def test_sequence_breakers_may_be_json_in_a_string(call, engine):
    for breakers in (["\n", "x"], '["\\n", "x"]'):
        body = {"prompt": "a", "dry_multiplier": 0.8, "dry_sequence_breakers": breakers}
        assert call(PATH, body).status_code == 200
        [dry] = engine.seen[-1][1].stages
        assert dry.dry_sequence_breakers == ("\n", "x")


def test_limits_of_the_search_for_repetitions_are_reported_as_ignored(call):
    response = call(PATH, {"prompt": "a", "dry_multiplier": 0.8, "dry_max_ngram": 12})
    assert "dry_max_ngram" in response.headers[HEADER]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -1),
        ("temperature", "hot"),
        ("top_p", 0),
        ("min_p", 2),
        ("n", 0),
        ("n", 10**9),
        ("logprobs", 21),
        ("logprobs", -1),
        ("max_tokens", -1),
        ("max_tokens", "many"),
        ("seed", 2**64),
        ("stop", 7),
        ("stop", [7]),
        ("logit_bias", {"a": 1}),
        ("stop_token_ids", ["a"]),
        ("stream", "perhaps"),
        ("priority", 3),
        ("min_tokens", 1.5),
    ],
)
def test_values_out_of_range_are_refused_by_name(call, name, value):
    response = call(PATH, {"prompt": "a", name: value})
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"].split("[")[0] == name
    assert name in error["message"]


def test_not_a_number_is_refused(call):
    response = call(
        PATH,
        content=b'{"prompt": "a", "temperature": NaN}',
        headers={"content-type": "application/json"},
    )
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "temperature"


def test_bounds_and_descriptions_are_documented(call):
    schema = call("/openapi.json").json()["components"]["schemas"]["CompletionRequest"]
    (number, _) = schema["properties"]["min_p"]["anyOf"]
    assert (number["minimum"], number["maximum"]) == (0, 1)
    assert "likeliest" in schema["properties"]["min_p"]["description"]
    assert "stopping_strings" in schema["properties"]["stop"]["description"]


@pytest.mark.parametrize("path", [PATH, "/v1/chat/completions"])
@pytest.mark.parametrize("name", ["sampler_priority", "sampler_order"])
def test_an_order_reaches_the_engine(call, engine, path, name):
    prompt = {"prompt": "a", "messages": [{"role": "user", "content": "a"}]}
    body = {**prompt, "temperature": 0.5, "min_p": 0.1, "top_k": 4, name: ["MIN_P", 0, 5]}
    assert call(path, body).status_code == 200
    stages = [stage.name() for stage in engine.seen[0][1].stages]
    assert stages == ["min_p", "top_k", "temperature"]


def test_an_order_of_what_is_no_sampler_is_refused_with_all_names(call):
    response = call(PATH, {"prompt": "a", "sampler_priority": ["temperature", "wibble"]})
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == "sampler_priority"
    assert "'wibble'" in error["message"]
    assert "logit_bias, " in error["message"]
    assert "13 (xtc)" in error["message"]
