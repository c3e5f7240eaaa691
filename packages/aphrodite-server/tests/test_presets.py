"""Sets of sampler fields that the server keeps."""

import pytest
from aphrodite_engine.sampling.stages.custom_token_bans import CustomTokenBans
from aphrodite_server.app import create_app
from aphrodite_server.cli.config_file import parse
from aphrodite_server.cli.flags import run_parser
from aphrodite_server.cli.setup import CommandError, settings_of
from aphrodite_server.presets import PresetError, load_presets
from aphrodite_server.settings import Settings

COMPLETIONS, CHAT, KOBOLD = "/v1/completions", "/v1/chat/completions", "/api/v1/generate"
ASK = {
    KOBOLD: {"prompt": "a"},
    COMPLETIONS: {"prompt": "a"},
    CHAT: {"messages": [{"role": "user", "content": "a"}]},
}
HEADER = "x-aphrodite-ignored-fields"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "calm.yaml").write_text("temperature: 0.5\nrep_pen: 1.1\nmin_p:\n")
    (tmp_path / "wild.yml").write_text(
        "temperature: 2\nmin_p: 0.1\nlogit_bias: {7: 2}\nsampler_order: [min_p, temperature]\n"
    )
    (tmp_path / "notes.txt").write_text("no preset")
    return tmp_path


@pytest.fixture
def ask(engine, post, folder):
    """Fields of the stages that a request gets, and the answer."""

    def send(fields, path=COMPLETIONS, **settings):
        app = create_app(engine, Settings(sampler_presets=folder, **settings))
        response = post(app, path, {**ASK[path], **fields})
        assert response.status_code == 200, response.text
        stages = engine.seen[-1][1].stages
        return {stage.name(): stage for stage in stages}, response

    return send


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT, KOBOLD])
def test_a_preset_fills_what_the_request_leaves_out(ask, path):
    stages, response = ask({"preset": "wild", "temperature": 0.7, "min_p": None}, path)
    assert list(stages) == ["logit_bias", "min_p", "temperature"]
    assert stages["temperature"].temperature == 0.7
    assert stages["min_p"].min_p == 0.1
    assert stages["logit_bias"].logit_bias == {7: 2}
    assert HEADER not in response.headers


def test_aliases_are_one_field(ask):
    assert ask({"preset": "calm"})[0]["penalties"].repetition_penalty == 1.1
    stages, _ = ask({"preset": "calm", "repetition_penalty": 1.3})
    assert stages["penalties"].repetition_penalty == 1.3
    assert "penalties" not in ask({"preset": "calm", "repetition_penalty": 1})[0]


def test_kobolds_order_and_bans_stay_kobolds(ask, folder):
    """Its numbers are its own in a preset, too; a ban of the end joins a preset's bans."""
    (folder / "bans.yaml").write_text("custom_token_bans: [65]\nsampler_order: [5, 2]\n")
    fields = {"temperature": 0.7, "min_p": 0.1, "ban_eos_token": True}
    stages, response = ask(fields, KOBOLD, forced_preset="bans")
    assert list(stages) == ["custom_token_bans", "ban_eos_token", "temperature", "min_p"]
    assert HEADER not in response.headers
    asked = {**fields, "sampler_order": [2, 5]}
    stages, response = ask(asked, KOBOLD, default_preset="bans")
    assert list(stages)[2:] == ["min_p", "temperature"]
    stages, response = ask(asked, KOBOLD, forced_preset="bans")
    assert list(stages)[2:] == ["temperature", "min_p"]
    assert response.headers[HEADER] == "sampler_order"


def test_what_is_empty_is_filled_and_overrules_nothing(ask, folder):
    (folder / "bans.yaml").write_text("custom_token_bans: [65]\ndry_multiplier: 1\n")
    empty = {"custom_token_bans": [], "dry_sequence_breakers": [], "dry_multiplier": ""}
    for settings in ({"default_preset": "bans"}, {"forced_preset": "bans"}):
        stages, response = ask(empty, **settings)
        assert stages["custom_token_bans"].custom_token_bans == (65,)
        assert stages["dry"].dry_sequence_breakers == (), "its empty list says something"
        assert HEADER not in response.headers


def test_no_preset_changes_nothing(ask):
    assert ask({})[0] == ask({"preset": None})[0] == ask({"preset": ""})[0] == {}


def test_default_preset(ask):
    assert ask({}, default_preset="calm")[0]["temperature"].temperature == 0.5
    assert ask({"preset": "wild"}, default_preset="calm")[0]["temperature"].temperature == 2


def test_forced_preset_is_told(ask):
    fields = {"temperature": 1.5, "repetition_penalty": 2, "top_k": 3}
    stages, response = ask(fields, forced_preset="calm")
    assert stages["temperature"].temperature == 0.5
    assert stages["penalties"].repetition_penalty == 1.1
    assert stages["top_k"].top_k == 3
    assert response.headers[HEADER].split(", ") == ["repetition_penalty", "temperature"]
    assert HEADER not in ask({"top_k": 3}, forced_preset="calm")[1].headers


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT, KOBOLD])
def test_a_forced_preset_of_draws_forbids_beam_search_by_name(engine, post, folder, path):
    (folder / "bans.yaml").write_text("custom_token_bans: [65]\n")
    body = {**ASK[path], "use_beam_search": True, "n": 2}
    app = create_app(engine, Settings(sampler_presets=folder, forced_preset="calm"))
    response = post(app, path, body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == "use_beam_search"
    assert "forced preset 'calm'" in error["message"]
    app = create_app(engine, Settings(sampler_presets=folder, forced_preset="bans"))
    assert post(app, path, body).status_code == 200
    assert engine.seen[-1][1].stages == (CustomTokenBans((65,)),)


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT, KOBOLD])
def test_a_preset_that_is_not_there_is_refused(engine, call, post, folder, path):
    response = call(path, {**ASK[path], "preset": "calm"})
    assert response.status_code == 400
    assert "--sampler-presets" in response.json()["error"]["message"]
    app = create_app(engine, Settings(sampler_presets=folder))
    response = post(app, path, {**ASK[path], "preset": "nope"})
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == "preset"
    assert error["message"].endswith("'nope' does not exist; this server has calm, wild")
    assert not engine.seen


def test_presets_are_listed(engine, post, folder):
    app = create_app(engine, Settings(sampler_presets=folder))
    presets = post(app, "/v1/samplers").json()["presets"]
    assert presets["calm"] == {"temperature": 0.5, "rep_pen": 1.1}
    assert set(presets) == {"calm", "wild"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("top_p: 2", "bad.yaml: top_p must be above 0 and at most 1, found 2"),
        ("model: a", "bad.yaml: 'model' is no sampler field; these are: .*top_p"),
        ("temprature: 2", "bad.yaml: 'temprature' is no sampler field; did you mean 'temperature'"),
        ("3: 2", "bad.yaml: 3 is no sampler field"),
        ("[top_p]", "bad.yaml must map sampler fields to values"),
        ("", "bad.yaml must map sampler fields to values"),
        ("a: [", "bad.yaml is no valid YAML"),
        ("sampler_priority: [nope]", "bad.yaml: sampler_priority names no sampler 'nope'"),
    ],
)
def test_bad_files_are_refused_at_start(tmp_path, text, message):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(PresetError, match=message):
        load_presets(Settings(sampler_presets=tmp_path))
    with pytest.raises(CommandError, match=message):
        settings_of(parse(run_parser(), ["demo", "--sampler-presets", str(tmp_path)]))


def test_what_is_not_there_is_refused_at_start(folder):
    with pytest.raises(PresetError, match=r"--default-preset nope: no such preset; .* calm, wild"):
        load_presets(Settings(sampler_presets=folder, default_preset="nope"))
    with pytest.raises(PresetError, match=r"--forced-preset calm: no such preset; .* none"):
        load_presets(Settings(forced_preset="calm"))
    with pytest.raises(PresetError, match="No such file"):
        load_presets(Settings(sampler_presets=folder / "nope"))
    (folder / "calm.yml").write_text("top_k: 1")
    with pytest.raises(PresetError, match="another preset named 'calm'"):
        load_presets(Settings(sampler_presets=folder))


def test_flags(folder):
    arguments = ["--sampler-presets", str(folder), "--default-preset", "calm"]
    settings = settings_of(parse(run_parser(), ["demo", *arguments, "--forced-preset", "wild"]))
    assert settings.sampler_presets == folder
    assert (settings.default_preset, settings.forced_preset) == ("calm", "wild")
