"""The front process of `aphrodite run` answers without torch: only the engine's process has it."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("numpy", "torch", "triton")
IMPORTS = """
import sys
import aphrodite_server.cli.run
import aphrodite_server.cli.setup
import aphrodite_server.cli.serving
import aphrodite_server.app
import aphrodite_server.cli.chat
import aphrodite_engine.loading.text
print(*sys.modules, sep="\\n")
"""


def test_nothing_that_the_front_imports_imports_torch() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    modules = set(done.stdout.split())
    assert "aphrodite_server.app" in modules
    assert not modules & set(HEAVY)


@pytest.mark.skipif(sys.platform != "linux", reason="the libraries of a process are in /proc")
@pytest.mark.weights
@pytest.mark.slow
def test_a_server_at_work_has_no_torch(server) -> None:
    """What is imported late is there after a chat, tokens and an error."""
    messages = [{"role": "user", "content": "Hello!"}]
    chat = {"messages": messages, "max_tokens": 2, "logprobs": True, "temperature": 0.5}
    assert server.request("POST", "/v1/chat/completions", chat).status == 200
    assert server.request("POST", "/v1/chat/completions", {"messages": 1}).status == 400
    assert server.request("POST", "/tokenize", {"prompt": "Hello!"}).status == 200
    [engine] = server.engine_pids
    assert "libtorch" in Path(f"/proc/{engine}/maps").read_text()
    libraries = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert "pydantic_core" in libraries
    assert [name for name in HEAVY if f"/{name}/" in libraries] == []
