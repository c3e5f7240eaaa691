"""/v1/samplers/explain over HTTP: the distributions are those that tokens are drawn from."""

import math
import re
from pathlib import Path

import pytest
from aphrodite_client import Client
from aphrodite_engine import LLM, SamplingParams
from aphrodite_engine.sampling.catalog import stages_from

pytestmark = pytest.mark.weights

ROOT = Path(__file__).parents[1]
PATH = "/v1/samplers/explain"
PROMPT = "The capital of France is"
SAMPLERS = {
    "temperature": 1.2,
    "top_p": 1,
    "min_p": 0.02,
    "xtc_probability": 1,
    "xtc_threshold": 0.05,
    "logit_bias": {"28": -100},
}


def test_a_prompt(server):
    asked = {"prompt": PROMPT, "seed": 5, **SAMPLERS}
    answer = server.request("POST", PATH, {**asked, "top": 7}).json
    names = [stage["name"] for stage in answer["samplers"]]
    assert names == ["logit_bias", "temperature", "min_p", "xtc"]
    assert answer["samplers"][0]["fields"] == {"logit_bias": {"28": -100}}
    for stage, following in zip(answer["samplers"], answer["samplers"][1:], strict=False):
        assert stage["candidates"]["after"] == following["candidates"]["before"]
        assert stage["entropy"]["after"] == following["entropy"]["before"]
        assert len(stage["tokens"]) == 7
    assert answer["samplers"][1]["entropy"]["after"] > answer["samplers"][1]["entropy"]["before"]
    assert answer["samplers"][2]["candidates"]["after"] < 1000
    assert answer["samplers"][3]["tokens"][0]["after"] == 0
    final = answer["final"]
    assert final["candidates"] == answer["samplers"][-1]["candidates"]["after"]
    assert not answer["greedy"]
    assert answer["usage"]["completion_tokens"] == 1
    complete = {**asked, "max_tokens": 1, "logprobs": 5}
    choice = server.request("POST", "/v1/completions", complete).json["choices"][0]
    assert choice["text"] == answer["token"]["text"]
    model = {text: math.exp(one) for text, one in choice["logprobs"]["top_logprobs"][0].items()}
    first = {one["text"]: one["before"] for one in answer["samplers"][0]["tokens"]}
    assert first[" Paris"] == pytest.approx(model[" Paris"], rel=1e-3)


def test_a_conversation(server):
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    asked = {"messages": messages, "temperature": 0, "stop": ["The"], "max_tokens": 300}
    answer = server.request("POST", PATH, asked).json
    chat = server.request("POST", "/v1/chat/completions", {**asked, "max_tokens": 1, "stop": None})
    assert answer["greedy"]
    assert answer["samplers"] == []
    assert answer["token"]["text"] == chat.json["choices"][0]["message"]["content"]
    assert len(answer["final"]["tokens"]) == 20
    assert answer["final"]["tokens"][0]["id"] == answer["token"]["id"]


def test_the_client(server):
    """What it declares is what the server says, nothing is left over."""
    asked = {"seed": 5, "top": 7, **SAMPLERS}
    answer = server.request("POST", PATH, {"prompt": PROMPT, **asked}).json
    described = server.request("GET", "/v1/samplers").json
    with Client(f"{server.url}/v1") as client:
        explained = client.explain(PROMPT, **asked)
        samplers = client.samplers()
    told = explained.model_dump(mode="json")
    volatile = {"created", "usage"}
    assert {k: v for k, v in told.items() if k not in volatile} == {
        k: v for k, v in answer.items() if k not in volatile
    }
    assert samplers.model_dump(mode="json", exclude_unset=True) == described
    models = [explained, *explained.samplers, *samplers.samplers, samplers.samplers[0].fields[0]]
    assert not any(set(model.model_extra or ()) - {"object", *volatile} for model in models)


def test_the_example_of_the_docs(server, capsys):
    page = (ROOT / "docs" / "samplers.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert "http://localhost:2242" in example
    exec(example.replace("http://localhost:2242", server.url), {})
    told = capsys.readouterr().out
    assert re.search(r"^min_p \d+ -> (\d+)\n(  .*\n){5}xtc \1 -> \d+$", told, re.MULTILINE)
    assert re.search(r"xtc.*\n  ' young' 0\.\d+ -> 0\.000$", told, re.MULTILINE)


def test_offline(server):
    samplers = {key: value for key, value in SAMPLERS.items() if key != "logit_bias"}
    answer = server.request("POST", PATH, {"prompt": PROMPT, "seed": 5, "top": 3, **samplers}).json
    params = SamplingParams(max_tokens=2, seed=5, explain=3, stages=stages_from(samplers))
    with LLM("demo", generation_config="none", max_model_len=256, max_num_seqs=2) as llm:
        completion = llm.generate(PROMPT, params, progress=False)[0].completions[0]
    first, second = completion.explanations
    assert [first.token, second.token] == completion.tokens
    assert [one.stage for one in first.stages] == [one["name"] for one in answer["samplers"]]
    assert first.final.candidates == answer["final"]["candidates"]
    assert first.token == answer["token"]["id"]
