"""What a model's generation_config.json recommends, behind requests and presets."""

import json
import logging

import msgspec
import pytest
from aphrodite_server.app import create_app
from aphrodite_server.cli.config_file import parse
from aphrodite_server.cli.flags import run_parser
from aphrodite_server.cli.setup import CommandError, settings_of
from aphrodite_server.settings import Settings

COMPLETIONS, CHAT, KOBOLD = "/v1/completions", "/v1/chat/completions", "/api/v1/generate"
ASK = {
    KOBOLD: {"prompt": "a"},
    COMPLETIONS: {"prompt": "a"},
    CHAT: {"messages": [{"role": "user", "content": "a"}]},
}
RECOMMENDED = {
    "do_sample": True,
    "eos_token_id": [1],
    "temperature": 0.6,
    "top_k": 20,
    "top_p": 0.95,
    "min_p": None,
    "repetition_penalty": 1.05,
}


@pytest.fixture
def write(engine, tmp_path):
    """Writes the model's file: an object, or bytes."""

    def file(content):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        (tmp_path / "generation_config.json").write_bytes(data)
        engine.info = msgspec.structs.replace(engine.info, path=str(tmp_path))

    return file


@pytest.fixture
def ask(engine, post):
    """Stages that a request gets."""

    def send(fields=(), path=COMPLETIONS, **settings):
        app = create_app(engine, Settings(**settings))
        response = post(app, path, {**ASK[path], **dict(fields)})
        assert response.status_code == 200, response.text
        return {stage.name(): stage for stage in engine.seen[-1][1].stages}

    return send


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT, KOBOLD])
def test_silent_requests(ask, write, path):
    write(RECOMMENDED)
    stages = ask(path=path)
    assert set(stages) == {"temperature", "top_k", "top_p", "penalties"}
    assert stages["temperature"].temperature == 0.6
    assert stages["penalties"].repetition_penalty == 1.05


@pytest.mark.parametrize("path", [COMPLETIONS, KOBOLD])
def test_requests_go_before(ask, write, path):
    """By any of a field's names, and with the value that means off."""
    write(RECOMMENDED)
    stages = ask({"temperature": 1, "rep_pen": 1.2, "top_k": 0, "top_p": None}, path)
    assert set(stages) == {"penalties", "top_p"}
    assert stages["penalties"].repetition_penalty == 1.2


def test_presets_go_before(ask, write, tmp_path):
    write(RECOMMENDED)
    presets = tmp_path / "presets"
    presets.mkdir()
    (presets / "calm.yaml").write_text("temperature: 0.3\ntop_k: 0\n")
    stages = ask({"preset": "calm"}, sampler_presets=presets)
    assert set(stages) == {"temperature", "top_p", "penalties"}
    assert stages["temperature"].temperature == 0.3
    assert ask(sampler_presets=presets, forced_preset="calm")["temperature"].temperature == 0.3
    assert ask(sampler_presets=presets)["temperature"].temperature == 0.6


@pytest.mark.parametrize("word", ["none", "aphrodite", "None"])
def test_they_can_be_left_out(ask, write, word):
    write(RECOMMENDED)
    assert ask(generation_config=word) == {}


def test_no_file(ask):
    assert ask() == {}


def test_they_are_told(engine, write, post, caplog):
    write(RECOMMENDED)
    with caplog.at_level(logging.INFO):
        app = create_app(engine, Settings())
    assert "temperature 0.6, top_k 20, top_p 0.95, repetition_penalty 1.05" in caplog.text
    assert "generation_config none is without" in caplog.text
    assert post(app, "/v1/samplers").json()["model_defaults"] == {
        "temperature": 0.6,
        "top_k": 20,
        "top_p": 0.95,
        "repetition_penalty": 1.05,
    }


def test_what_cannot_be_honoured_is_told_and_left_out(ask, write, caplog):
    write({"temperature": -1, "top_p": "much", "top_k": 5})
    assert set(ask()) == {"top_k"}
    assert "temperature must be" in caplog.text
    assert "top_p must be a number" in caplog.text
    write(b"[")
    assert ask() == {}
    assert "is not valid JSON" in caplog.text


def test_the_flag():
    def given(*flags):
        return settings_of(parse(run_parser(), ["demo", *flags])).generation_config

    assert given() == "auto"
    assert given("--generation-config", "auto") == "auto"
    assert given("--generation-config", "none") == "none"
    assert given("--generation-config", "aphrodite") == "none"


def test_another_file(ask, write, tmp_path):
    write(RECOMMENDED)
    other = tmp_path / "Other"
    other.mkdir()
    (other / "generation_config.json").write_text('{"top_k": 7}')
    for path in (other, other / "generation_config.json"):
        assert ask(generation_config=str(path))["top_k"].top_k == 7
    options = parse(run_parser(), ["demo", "--generation-config", str(tmp_path / "absent")])
    with pytest.raises(CommandError, match=r"absent does not exist; give auto, none, or the path"):
        settings_of(options)
    (tmp_path / "absent").write_text("top_k: 7")
    with pytest.raises(CommandError, match="absent is not valid JSON"):
        settings_of(options)
