"""Fields of the Kobold API."""

import pytest

PATH, STREAM = "/api/v1/generate", "/api/extra/generate/stream"
IGNORED = "x-aphrodite-ignored-fields"


def params(engine):
    return engine.seen[-1][1]


def test_samplers_by_kobolds_names(call, engine):
    fields = {
        "temperature": 0.7,
        "rep_pen": 1.1,
        "typical": 0.9,
        "tfs": 0.95,
        "top_a": 0.2,
        "top_k": 40,
        "eps_cutoff": 3,
        "mirostat": 2,
        "mirostat_tau": 4,
        "smoothing_factor": 0.3,
        "nsigma": 1.5,
    }
    assert call(PATH, {"prompt": "a", **fields}).status_code == 200
    stages = {stage.name(): stage for stage in params(engine).stages}
    assert stages["temperature"].temperature == 0.7
    assert stages["penalties"].repetition_penalty == 1.1
    assert stages["typical_p"].typical_p == 0.9
    assert stages["epsilon_cutoff"].epsilon_cutoff == 3
    assert (stages["mirostat"].mirostat_mode, stages["mirostat"].mirostat_tau) == (2, 4)
    assert {"tfs", "top_a", "top_k", "quadratic", "top_n_sigma"} <= stages.keys()


def test_dynamic_temperature(call, engine):
    call(PATH, {"prompt": "a", "temperature": 1, "dynatemp_range": 0.5, "dynatemp_exponent": 2})
    (stage,) = params(engine).stages
    assert (stage.low, stage.high, stage.dynatemp_exponent) == (0.5, 1.5, 2)


def test_a_temperature_of_zero_is_greedy(call, engine):
    call(PATH, {"prompt": "a", "temperature": 0})
    assert params(engine).stages[0].greedy


def test_kobolds_order(call, engine):
    fields = {"rep_pen": 1.1, "top_k": 9, "top_p": 0.9, "min_p": 0.1, "temperature": 0.7}
    fields["smoothing_factor"] = 0.2
    call(PATH, {"prompt": "a", **fields, "sampler_order": [6, 0, 1, 3, 4, 2, 5]})
    names = [stage.name() for stage in params(engine).stages]
    assert names == ["penalties", "top_k", "top_p", "min_p", "temperature", "quadratic"]
    call(PATH, {"prompt": "a", **fields, "sampler_order": [5, "min_p", 0, 6]})
    names = [stage.name() for stage in params(engine).stages]
    order = [name for name in names if name != "top_p"]
    assert order == ["temperature", "quadratic", "min_p", "top_k", "penalties"]


@pytest.mark.parametrize("order", [[7], [-1], [0, 0], [True], ["wibble"], "wibble", 3])
def test_orders_that_mean_nothing_are_refused(call, order):
    response = call(PATH, {"prompt": "a", "sampler_order": order})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "sampler_order"


@pytest.mark.parametrize("nothing", [None, [], ""])
def test_no_order_is_the_default(call, engine, nothing):
    call(PATH, {"prompt": "a", "temperature": 0.7, "min_p": 0.1, "sampler_order": nothing})
    assert [stage.name() for stage in params(engine).stages] == ["temperature", "min_p"]


@pytest.mark.parametrize("name", ["use_default_badwordsids", "ban_eos_token"])
def test_end_of_text_can_be_banned(call, engine, name):
    for path in (PATH, "/v1/completions"):
        for bans in (None, [], [65], "65"):
            call(path, {"prompt": "a", "custom_token_bans": bans, name: True})
            asked = params(engine).resolve(engine.tokenizer)
            named = {stage.name(): stage for stage in asked.stages}
            assert named["ban_eos_token"].ends == (258,)
            found = named.get("custom_token_bans")
            assert (found and found.custom_token_bans) == ((65,) if bans else None)
    response = call(PATH, {"prompt": "a", "custom_token_bans": 7, name: True})
    assert response.json()["error"]["param"] == "custom_token_bans"


def test_end_of_text_can_be_passed(call, engine):
    call(PATH, {"prompt": "a", "max_length": 30, "bypass_eos": True})
    assert params(engine).ignore_eos


def test_control_tokens_can_be_shown(call, engine):
    call(PATH, {"prompt": "a", "render_special": True})
    assert not params(engine).skip_special_tokens
    response = call(PATH, {"prompt": "a", "render_special": True, "skip_special_tokens": True})
    assert response.json()["error"]["param"] == "skip_special_tokens"


@pytest.mark.parametrize("name", ["stop_sequence", "stop", "stopping_strings"])
@pytest.mark.parametrize(("trim", "text"), [(None, "Hello"), (True, "Hello"), (False, "Hello,")])
def test_stop_sequences(call, name, trim, text):
    results = call(PATH, {"prompt": "a", name: [","], "trim_stop": trim}).json()["results"]
    assert results == [{"text": text, "finish_reason": "stop"}]


def test_a_stop_is_trimmed_or_kept(call):
    fields = {"trim_stop": True, "include_stop_str_in_output": True}
    response = call(PATH, {"prompt": "a", **fields})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "trim_stop"


@pytest.mark.parametrize(("seed", "wanted"), [(7, 7), (0, 0), (-1, None), (None, None)])
@pytest.mark.parametrize("name", ["sampler_seed", "seed"])
def test_seeds(call, engine, name, seed, wanted):
    call(PATH, {"prompt": "a", name: seed})
    assert params(engine).seed == wanted


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("logprobs", True),
        ("grammar", "root ::= x"),
        ("images", ["iVBORw0KGgo="]),
        ("negative_prompt", "bad"),
        ("frmttriminc", True),
        ("singleline", True),
        ("use_world_info", True),
        ("soft_prompt", "some.zip"),
    ],
)
@pytest.mark.parametrize("path", [PATH, STREAM])
def test_what_cannot_be_honoured_is_refused_by_name(call, path, name, value):
    response = call(path, {"prompt": "a", name: value})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == name


def test_unknown_fields_are_reported(call):
    assert call(PATH, {"prompt": "a", "wibble": 1}).headers[IGNORED] == "wibble"


@pytest.mark.parametrize("path", [PATH, STREAM, "/v1/completions"])
@pytest.mark.parametrize("name", ["rep_pen", "dry_multiplier", "sampler_order", "logit_bias"])
def test_half_a_character_is_refused_by_name(call, path, name):
    content = b'{"prompt": "a", "%b": ["\\ud800"]}' % name.encode()
    response = call(path, content=content)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == name


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stop": [1]}, "stop[0]: input should be a valid string, found 1"),
        ({"stop_sequence": [1]}, "stop_sequence[0]: input should be a valid string, found 1"),
        ({"max_new_tokens": 0}, "max_new_tokens: input should be greater than or equal to 1"),
    ],
)
def test_a_bad_field_has_the_name_it_was_sent_by(call, fields, message):
    answer = call("/api/v1/generate", {"prompt": "a", **fields})
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]
