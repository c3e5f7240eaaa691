"""Models, samplers, tokens, health, version, metrics and documentation."""

from aphrodite_engine.sampling.catalog import parameters
from aphrodite_server import __version__


def test_models(call):
    (card,) = call("/v1/models").json()["data"]
    assert card["id"] == "fake/model"
    assert card["object"] == "model"
    assert card["max_model_len"] == 512
    assert call("/v1/models/fake/model").json() == card


def test_samplers(call):
    """Whatever a request may set is described, and nothing else."""
    answer = call("/v1/samplers").json()
    stages = answer["samplers"]
    fields = [field for stage in stages for field in stage["fields"]] + answer["order"]
    names = [name for field in fields for name in (field["name"], *field.get("aliases", ()))]
    assert sorted(names) == sorted(parameters())
    assert [stage["order"] for stage in stages] == list(range(1, len(stages) + 1))
    assert all("default" in field and field["docs"] for field in fields)
    top_p = next(field for field in fields if field["name"] == "top_p")
    assert (top_p["exclusive_minimum"], top_p["maximum"], top_p["off"]) == (0, 1, [1])


def test_tokenize(call):
    for path in ("/v1/tokenize", "/tokenize"):
        body = {"model": "fake/model", "prompt": "aé"}
        assert call(path, body).json() == {
            "count": 4,
            "max_model_len": 512,
            "tokens": [256, 97, 0xC3, 0xA9],
        }


def test_tokenize_options(call):
    body = {"prompt": "ab", "add_special_tokens": False, "return_token_strs": True}
    answer = call("/tokenize", body).json()
    assert (answer["tokens"], answer["token_strs"]) == ([97, 98], ["a", "b"])


def test_tokenize_a_conversation(call, engine):
    messages = [{"role": "user", "content": "Hi"}]
    tokens = call("/v1/tokenize", {"messages": messages}).json()["tokens"]
    call("/v1/chat/completions", {"messages": messages})
    assert tokens == engine.seen[0][0]


def test_tokenize_needs_one_text(call):
    assert call("/tokenize", {}).status_code == 400
    assert call("/tokenize", {"prompt": "a", "messages": []}).status_code == 400


def test_detokenize(call):
    body = {"tokens": [256, 97, 0xC3, 0xA9]}
    assert call("/v1/detokenize", body).json() == {"prompt": "<s>aé"}
    assert call("/detokenize", {"tokens": [999]}).status_code == 400


def test_health_version(call):
    assert call("/health").status_code == 200
    assert call("/health", method="HEAD").status_code == 200
    assert call("/version").json() == {"version": __version__}


def test_metrics(call, engine):
    call("/v1/completions", {"prompt": "abc", "max_tokens": 4, "n": 2})
    engine.error = ZeroDivisionError("defect")
    call("/v1/completions", {"prompt": "abc", "max_tokens": 4})
    text = call("/metrics").text
    label = 'engine="0",model_name="fake/model"'
    for line in (
        f"aphrodite:num_requests_running{{{label}}} 1.0",
        f"aphrodite:kv_cache_usage_perc{{{label}}} 0.25",
        f"aphrodite:prompt_tokens_total{{{label}}} 7.0",
        'aphrodite:request_success_total{engine="0",finished_reason="length",'
        'model_name="fake/model"} 2.0',
        f"aphrodite:time_to_first_token_seconds_count{{{label}}} 1.0",
        f"aphrodite:inter_token_latency_seconds_count{{{label}}} 6.0",
        f"aphrodite:e2e_request_latency_seconds_count{{{label}}} 1.0",
        f"aphrodite:request_generation_tokens_sum{{{label}}} 8.0",
        f"aphrodite:request_params_n_sum{{{label}}} 2.0",
    ):
        assert line in text.splitlines(), text
