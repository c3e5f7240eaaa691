"""A real server in a process of its own, with the demo model; most tests share one."""

import contextlib
import http.client
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import psutil
import pytest

COMMAND = (
    sys.executable,
    "-c",
    "import sys; from aphrodite_server.cli import main; sys.exit(main())",
)
START_SECONDS = 120


class Answer(NamedTuple):
    """What came back."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        return self.json["error"]


@dataclass
class Server:
    """A running server."""

    process: "subprocess.Popen[bytes]"
    log: Path
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def engine_pids(self) -> list[int]:
        """Children that are engines."""
        children = psutil.Process(self.process.pid).children()
        return [child.pid for child in children if "aphrodite_engine.process" in child.cmdline()]

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send bytes as they are, anything else as JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Content-Type": "application/json", **(headers or {})}
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, path, data, sent)
            response = connection.getresponse()
            content = response.read()
            received = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, content, received)

    def connect(self) -> http.client.HTTPConnection:
        """A connection for what `request` cannot do."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    @contextlib.contextmanager
    def stream(self, path: str, body: Mapping[str, Any]) -> Iterator[Iterator[str]]:
        """The data of events as they come; leaving early closes the connection."""
        with contextlib.closing(self.connect()) as connection:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", path, json.dumps({**body, "stream": True}), headers)
            response = connection.getresponse()
            assert response.status == 200, response.read()
            assert response.headers["content-type"].startswith("text/event-stream")
            yield events(response)

    def metrics(self) -> dict[str, float]:
        """Values by name, without the prefix and labels."""
        text = self.request("GET", "/metrics").body.decode()
        found = re.findall(r"^aphrodite:(\w+)\{[^}]*\} (\S+)$", text, re.MULTILINE)
        return {name: float(value) for name, value in found}

    def wait_until_idle(self) -> None:
        """Return once nothing runs and every block is free."""
        names = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
        wait_until(lambda: not any(self.metrics()[name] for name in names), 20)

    def wait_until_healthy(self) -> None:
        """Return once the engine answers."""
        wait_until(lambda: self.request("GET", "/health").status == 200, START_SECONDS)


def events(response: IO[bytes]) -> Iterator[str]:
    """The data of server-sent events."""
    for line in response:
        if line.startswith(b"data: "):
            yield line[6:].rstrip(b"\n").decode()


def wait_until(condition: Callable[[], object], seconds: float) -> None:
    """Return once the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"did not happen within {seconds} s"
        time.sleep(0.05)


@contextlib.contextmanager
def launched(folder: Path, *flags: str) -> Iterator[Server]:
    """A server of the demo model on a free port, ended however the test ends."""
    log = folder / "server.log"
    arguments = ("run", "demo", "--host", "127.0.0.1", "--port", "0", *flags)
    with log.open("wb") as file:
        process = subprocess.Popen([*COMMAND, *arguments], stdin=subprocess.DEVNULL, stderr=file)
    try:
        yield Server(process, log, _port(process, log))
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(20)


def _port(process: "subprocess.Popen[bytes]", log: Path) -> int:
    def told() -> bool:
        assert process.poll() is None, log.read_text()
        return "answers at" in log.read_text()

    wait_until(told, START_SECONDS)
    found = re.search(r"answers at http://[^:]+:(\d+)", log.read_text())
    assert found is not None
    return int(found[1])


@pytest.fixture
def wait_for() -> Callable[[Callable[[], object], float], None]:
    """Return once a condition holds."""
    return wait_until


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Any]:
    """Start a server of one's own."""
    with contextlib.ExitStack() as stack:
        yield lambda *flags: stack.enter_context(launched(tmp_path, *flags))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server that all share: deterministic, so that company changes nobody's text."""
    flags = ("--deterministic", "--max-model-len", "1024", "--max-num-seqs", "8")
    with launched(tmp_path_factory.mktemp("server"), *flags) as running:
        yield running
