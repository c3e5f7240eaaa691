"""Sampling defaults of a model, and what becomes of them offline."""

import json

import pytest
from aphrodite_engine.errors import ConfigError, RequestError
from aphrodite_engine.loading.generation_config import sampling_defaults
from aphrodite_engine.loading.source import DEMO_FILE
from aphrodite_engine.sampling.catalog import filled, stages_from
from aphrodite_engine.sampling.params import SamplingParams, params_from
from aphrodite_engine.sampling.stages.min_p import MinP
from aphrodite_engine.sampling.stages.penalties import Penalties
from aphrodite_engine.sampling.stages.temperature import Temperature
from aphrodite_engine.sampling.stages.top_k import TopK
from aphrodite_engine.sampling.stages.top_p import TopP
from gguf import GGUFWriter

RECOMMENDED = {"temperature": 0.6, "top_k": 20, "top_p": 2, "min_p": None, "bos_token_id": 1}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "generation_config.json").write_text(json.dumps(RECOMMENDED))
    return tmp_path


def test_the_models_own(folder, caplog):
    assert sampling_defaults("auto", folder) == {"temperature": 0.6, "top_k": 20}
    assert "top_p must be" in caplog.text


def test_they_can_be_left_out(folder):
    assert sampling_defaults("none", folder) == {}
    assert sampling_defaults("auto", folder / "model.gguf") == {}


@pytest.fixture
def file(tmp_path):
    """Writes a GGUF file that says things under `general.sampling.`."""

    def write(name="model.gguf", **said):
        path = tmp_path / name
        writer = GGUFWriter(path, "llama")
        kinds = {float: writer.add_float32, int: writer.add_int32, str: writer.add_string}
        for key, value in said.items():
            kinds[type(value)](f"general.sampling.{key}", value)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()
        return path

    return write


def test_those_of_a_gguf_file(file, caplog):
    path = file(temp=0.95, top_k=20, xtc_probability=7.0, sequence="top_k;temperature")
    assert sampling_defaults("auto", path) == {"temperature": 0.95, "top_k": 20}
    assert "xtc_probability must be" in caplog.text
    assert "general.sampling.sequence" in caplog.text
    assert sampling_defaults("none", path) == {}


@pytest.mark.parametrize(
    ("last", "penalties"),
    [(64, (1.1, 64)), (-1, (1.1, -1)), (None, (1.1, 0)), (0, None)],
)
def test_over_how_many_tokens_a_gguf_file_counts_repetitions(file, last, penalties):
    path = file(penalty_repeat=1.1, **({} if last is None else {"penalty_last_n": last}))
    found = stages_from(sampling_defaults("auto", path))
    assert [(each.repetition_penalty, each.rep_pen_range) for each in found] == (
        [] if penalties is None else [penalties]
    )


def test_generation_config_counts_before_a_gguf_file(file, folder):
    file(temp=0.1)
    assert sampling_defaults("auto", folder)["temperature"] == 0.6


def test_those_of_the_demo(file):
    assert sampling_defaults("auto", file(DEMO_FILE)) == {"temperature": 0.2, "top_p": 0.9}
    assert sampling_defaults("auto", file(DEMO_FILE, temp=0.5)) == {"temperature": 0.5}


def test_a_file_that_is_none(tmp_path, caplog):
    (tmp_path / "model.gguf").write_bytes(b"nothing")
    assert sampling_defaults("auto", tmp_path / "model.gguf") == {}
    assert "left out" in caplog.text
    assert "model.gguf" in caplog.text


def test_another_file(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for source in (folder, folder / "generation_config.json"):
        assert sampling_defaults(str(source), elsewhere) == {"temperature": 0.6, "top_k": 20}


@pytest.mark.parametrize("content", [None, "[1]", "{"])
def test_another_file_must_be_one(tmp_path, content):
    path = tmp_path / "mine.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=r"generation_config.*mine\.json"):
        sampling_defaults(str(path), tmp_path)


DEFAULTS = {"temperature": 0.6, "top_k": 20, "repetition_penalty": 1.1}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"top_k": 5, "min_p": 0.1},
        {"presence_penalty": 0.5},
        {"rep_pen": 1.3, "frequency_penalty": 0.2},
        {"dynatemp_min": 0.5, "dynatemp_max": 2},
        {"temperature": 0.9, "top_k": []},
    ],
)
def test_defaults_fill_what_stages_leave_out_as_they_fill_what_requests_do(fields):
    offline = SamplingParams(stages=stages_from(fields)).completed(DEFAULTS)
    assert offline.stages == stages_from(filled(fields, DEFAULTS))


def test_a_stage_at_its_defaults_has_none_filled():
    params = SamplingParams(stages=(Temperature(), MinP(0.1), Penalties()))
    assert params.completed(DEFAULTS).stages == (Temperature(), TopK(20), MinP(0.1), Penalties())


def test_defaults_keep_the_order_of_a_request():
    params = SamplingParams(stages=(MinP(0.1), Temperature(2.0)))
    assert params.completed({"top_p": 0.9, "temperature": 0.5, "min_p": 0.3}).stages == (
        TopP(0.9),
        MinP(0.1),
        Temperature(2.0),
    )


def test_a_beam_search_has_nobodys_defaults():
    beams = SamplingParams(use_beam_search=True)
    assert beams.completed(DEFAULTS) == beams


@pytest.mark.parametrize(
    ("fields", "made"),
    [
        ({}, (Penalties(1.1), Temperature(0.6), TopK(20))),
        (
            {"temperature": 1, "dynatemp_range": 0.5, "top_k": -1, "rep_pen": 1},
            (Temperature(dynatemp_range=0.5),),
        ),
        (
            {"rep_pen": 1, "presence_penalty": 0.5},
            (Penalties(presence_penalty=0.5), Temperature(0.6), TopK(20)),
        ),
        ({"temperature": 1, "repetition_penalty": 1, "top_k": 0}, ()),
        ({"temperature": None, "top_k": "", "rep_pen": 1}, (Temperature(0.6), TopK(20))),
        (
            {"sampler_order": [0, 5], "rep_pen": 1},
            (TopK(20), Temperature(0.6)),
        ),
        ({"use_beam_search": True, "best_of": 2}, ()),
    ],
)
def test_what_a_request_sets_stays_be_it_off(fields, made):
    assert params_from(fields, DEFAULTS).stages == made


def test_limits_of_a_request_are_spelled_as_on_the_wire():
    fields = {"max_tokens": 5, "seed": -1, "stop": "x", "stop_token_ids": [3], "n": None}
    assert params_from(fields) == SamplingParams(max_tokens=5, stop=("x",), stop_token_ids=(3,))
    assert params_from({"stop": ["a", ""], "seed": 1}) == SamplingParams(stop=("a",), seed=1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temprature": 1}, "'temprature' is no field of a request; did you mean temperature"),
        ({"stages": (TopK(2),)}, "'stages' is no field of a request"),
        ({"n": 1.5}, "n must be an integer, at least 1 and at most 1024, found 1.5"),
        ({"stop": [1]}, r"stop\[0\] must be a string, found 1"),
        ({"stop": 5}, "stop must be a list of strings, found 5"),
        ({"rep_pen": 0}, "rep_pen must be above 0, found 0"),
    ],
)
def test_a_bad_request_is_told(fields, message):
    with pytest.raises(RequestError, match=message) as caught:
        params_from(fields)
    assert caught.value.field in fields
