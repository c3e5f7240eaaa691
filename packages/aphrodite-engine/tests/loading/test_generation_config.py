"""Sampling defaults of a model, and what becomes of them offline."""

import json

import pytest
from aphrodite_engine.errors import ConfigError
from aphrodite_engine.loading.generation_config import sampling_defaults
from aphrodite_engine.sampling.catalog import stages_from
from aphrodite_engine.sampling.params import SamplingParams

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


def test_defaults_act_where_a_request_has_no_such_stage():
    defaults = stages_from({"temperature": 0.6, "top_k": 20, "repetition_penalty": 1.1})
    own = stages_from({"top_k": 5, "min_p": 0.1})
    completed = SamplingParams(stages=own).completed(defaults)
    assert completed.stages == stages_from(
        {"temperature": 0.6, "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1}
    )
    assert SamplingParams(stages=defaults).completed(own[1:]).stages == (*defaults, *own[1:])
    beams = SamplingParams(use_beam_search=True)
    assert beams.completed(defaults) == beams
