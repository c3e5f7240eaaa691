"""The command: flags, files, and what is refused before anything is loaded."""

import os
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import aphrodite_server
import httpx
import pytest
from aphrodite_engine.config import EngineConfig
from aphrodite_server.cli import main
from aphrodite_server.cli.chat import Chat
from aphrodite_server.cli.config_file import parse
from aphrodite_server.cli.flags import GROUPS, LIMITED, MISSING, engine_config, refusal, run_parser
from aphrodite_server.cli.setup import settings_of
from aphrodite_server.settings import Settings

ROOT = Path(__file__).parents[1]


def options(*arguments):
    return parse(run_parser(), arguments)


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == aphrodite_server.__version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert aphrodite_server.__version__ == project["version"]


def test_help(capsys):
    assert main(["--help"]) == 0
    with pytest.raises(SystemExit) as ended:
        main(["run", "--help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    for title in ("server:", *(f"{title}:" for title in GROUPS)):
        assert title in told


@pytest.mark.parametrize("arguments", [[], ["dance"], ["run"], ["run", "m", "--wibble"]])
def test_wrong_usage(arguments, capsys):
    try:
        code = main(arguments)
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    assert capsys.readouterr().err


def test_light_commands_do_not_wait_for_torch():
    code = (
        "import sys\nfrom aphrodite_server.cli import main\n"
        "main(['--version'])\ntry:\n    main(['run', '--help'])\nexcept SystemExit:\n    pass\n"
        "sys.exit(len({'torch', 'fastapi', 'uvicorn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_field_of_the_engine_has_a_flag():
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted([*grouped, "model"]) == sorted(EngineConfig.__struct_fields__)


def test_flags_become_configuration():
    given = options(
        "demo", "--max-model-len", "32k", "--no-enable-prefix-caching", "--threads", "2",
        "--kv-cache-memory", "1.5g", "--deterministic", "--dtype", "float32", "-q", "auto",
    )  # fmt: skip
    assert refusal(given) is None
    assert engine_config(given) == EngineConfig(
        model="demo",
        max_model_len=32768,
        enable_prefix_caching=False,
        threads=2,
        kv_cache_memory=3 * 2**29,
        deterministic=True,
        dtype="float32",
    )
    assert engine_config(options("demo", "--max-model-len", "auto")) == EngineConfig(model="demo")
    assert engine_config(options("--model", "demo")) == EngineConfig(model="demo")


def test_flags_become_settings(monkeypatch):
    monkeypatch.setenv("APHRODITE_PORT", "1111")
    monkeypatch.setenv("APHRODITE_API_KEY", "one, two")
    from_environment = settings_of(options("demo"))
    assert from_environment.port == 1111
    assert from_environment.api_keys == ("one", "two")
    given = options(
        "demo", "--port", "2222", "--api-keys", "a", "b", "--strict-fields",
        "--served-model-name", "x", "y", "--scheduling-policy", "priority",
    )  # fmt: skip
    settings = settings_of(given)
    assert settings == Settings(
        port=2222,
        api_keys=("a", "b"),
        strict_fields=True,
        served_model_names=("x", "y"),
        priorities=True,
    )
    assert "two" not in repr(from_environment)


@pytest.mark.parametrize("name", sorted(MISSING))
def test_features_to_come(name, capsys):
    flag = "--" + name.replace("_", "-")
    assert main(["run", "demo", flag, "1"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"aphrodite: error: {flag} is not available")
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", sorted(LIMITED))
def test_values_to_come(name, capsys):
    flag = "--" + name.replace("_", "-")
    assert main(["run", "demo", flag, "8"]) == 2
    assert f"{flag} 8 is not available" in capsys.readouterr().err
    assert refusal(options("demo", flag, LIMITED[name].works[0])) is None


def test_config_file(tmp_path):
    file = tmp_path / "server.yaml"
    file.write_text(
        "model: demo\nport: 3333\nmax-model-len: 8k\nenable_prefix_caching: false\n"
        "served-model-name: [x, y]\nseed: -1\ndtype: float32\n"
    )
    given = options("--config", str(file), "--dtype", "bfloat16")
    config = engine_config(given)
    assert config == EngineConfig(
        model="demo", max_model_len=8192, enable_prefix_caching=False, seed=-1, dtype="bfloat16"
    )
    assert settings_of(given).served_model_names == ("x", "y")
    assert settings_of(given).port == 3333
    assert engine_config(options("other", "--config", str(file))).model == "other"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("wibble: 1", "'wibble' is no flag"),
        ("- port", "must map flags"),
        ("port: [", "no valid YAML"),
        ("port: many", "invalid int"),
        (None, "cannot read"),
    ],
)
def test_bad_config_files(tmp_path, capsys, content, words):
    file = tmp_path / "server.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SystemExit) as ended:
        options("demo", "--config", str(file))
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_port_in_use_is_found_before_loading(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["run", "owner/name", "--host", "127.0.0.1", "--port", port]) == 1
    error = capsys.readouterr().err
    assert f"port {port} of 127.0.0.1 is in use" in error


def test_bad_ports(capsys):
    assert main(["run", "demo", "--port", "99999"]) == 1
    assert "port" in capsys.readouterr().err


def test_missing_model(tmp_path):
    missing = str(tmp_path / "no.gguf")
    code = "import sys; from aphrodite_server.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "run", missing, "--port", "0", "--host", "127.0.0.1"]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("aphrodite: error:")]
    assert missing in line


def test_chat_once(url, capsys):
    assert main(["chat", "--url", f"{url}/v1", "-q", "Hi", "--system-prompt", "Be kind."]) == 0
    assert capsys.readouterr().out == "Hello, world!\n"


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/"])
def test_chat_takes_the_address_of_the_server_or_of_its_api(url, capsys, path):
    assert main(["chat", "--url", url + path, "-q", "Hi"]) == 0
    assert "Hello, world!" in capsys.readouterr().out


def test_chat_remembers(url, engine):
    with httpx.Client(base_url=f"{url}/v1") as client:
        chat = Chat(client, None)
        for text in ("One?", "Two?"):
            assert "".join(chat.ask(text)) == "Hello, world!"
    prompt = engine.tokenizer.decode(engine.seen[1][0])
    assert prompt.split("\n")[:4] == ["user", "One?", "assistant", "Hello, world!"]


def test_chat_converses_until_the_end(url, capsys, monkeypatch):
    lines = iter(["Hi", "", "Bye"])

    def ask(prompt):
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", ask)
    assert main(["chat", "--url", f"{url}/v1"]) == 0
    assert capsys.readouterr().out == "Hello, world!\nHello, world!\n\n"


def test_chat_tells_errors(url, engine, capsys):
    engine.error, engine.error_at = RuntimeError("lost"), 3
    assert main(["chat", "--url", f"{url}/v1", "-q", "Hi"]) == 1
    assert "aphrodite: error: " in capsys.readouterr().err
    assert main(["chat", "--url", f"{url}/v1", "--model-name", "gpt-9", "-q", "Hi"]) == 1
    assert "gpt-9" in capsys.readouterr().err
    assert main(["chat", "--url", "http://127.0.0.1:9/v1", "-q", "Hi"]) == 1
    assert "no server answers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["quantize", "/nowhere", "--format", "int8", "--output", "out"],
            "/nowhere does not exist",
        ),
        (["quantize", "demo", "--format", "int9", "--output", "out"], "present are "),
        (
            ["quantize", "demo", "--format", "exl3", "--bits", "4.5", "--output", "out"],
            "1 to 8 bits, and of 1.5, 2.5 and 3.5, not 4.5",
        ),
        (
            ["quantize", "demo", "--format", "gptq", "--bits", "2.5", "--output", "out"],
            "bits are 2, 3, 4 or 8, found 2.5",
        ),
        (
            ["quantize", "demo", "--format", "gptq", "--bits", "inf", "--output", "out"],
            "bits are 2, 3, 4 or 8, found inf",
        ),
        (
            [
                "quantize",
                "demo",
                "--format",
                "compressed_tensors",
                "--bits",
                "nan",
                "--output",
                "out",
            ],
            "bits are 4 or 8, found nan",
        ),
    ],
)
def test_what_cannot_be_quantised_is_said_in_a_line(
    arguments, message, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    told = capsys.readouterr().err
    assert told.startswith("aphrodite: error: ") and message in told
    assert not (tmp_path / "out").exists()
