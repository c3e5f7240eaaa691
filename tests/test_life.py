"""Processes that are killed: clients learn it, what is left cleans up, nothing stays behind."""

import json
import os
import signal
import threading

import psutil
import pytest

pytestmark = [pytest.mark.weights, pytest.mark.slow]

COMPLETIONS = "/v1/completions"
BODY = {"prompt": "Once upon a time", "max_tokens": 12, "seed": 3}
LONG = {**BODY, "max_tokens": 900, "ignore_eos": True}
SMALL = ("--max-model-len", "1024", "--max-num-seqs", "2")


def gone(pids: list[int]) -> bool:
    """None of these processes lives."""
    return not any(psutil.pid_exists(pid) for pid in pids)


def test_engine_killed_mid_stream(server, wait_for):
    before = server.request("POST", COMPLETIONS, BODY).json["choices"]
    [engine] = server.engine_pids
    with server.stream(COMPLETIONS, LONG) as events:
        next(events)
        os.kill(engine, signal.SIGKILL)
        *_, error, done = list(events)
    assert done == "[DONE]"
    assert "killed by signal 9" in json.loads(error)["error"]["message"]
    for path, body in ((COMPLETIONS, BODY), (COMPLETIONS, {**BODY, "stream": True})):
        meanwhile = server.request("POST", path, body)
        assert meanwhile.status == 503
        assert int(meanwhile.headers["retry-after"]) > 0
        assert "restarted" in meanwhile.error["message"]
    assert server.request("GET", "/health").status == 503
    assert server.request("GET", "/v1/models").status == 200
    server.wait_until_healthy()
    assert server.request("POST", COMPLETIONS, BODY).json["choices"] == before
    assert server.engine_pids != [engine]


def test_interrupted(launch, wait_for):
    """Ctrl-C while a stream runs: its client is told, the command ends, no process stays."""
    server = launch(*SMALL)
    pids = [server.process.pid, *server.engine_pids]
    assert len(pids) == 2
    with server.stream(COMPLETIONS, LONG) as events:
        next(events)
        server.process.send_signal(signal.SIGINT)
        assert list(events)[-1] == "[DONE]"
    assert server.process.wait(20) in (0, 130)
    wait_for(lambda: gone(pids), 10)
    assert "Traceback" not in server.log.read_text()


def test_server_killed(launch, wait_for):
    """An engine whose server is gone goes, too, even in the middle of its work."""
    server = launch(*SMALL)
    engines = server.engine_pids
    assert engines
    reader = threading.Thread(target=_read_until_cut, args=(server,))
    reader.start()
    wait_for(lambda: server.metrics()["num_requests_running"] > 0, 20)
    server.process.kill()
    server.process.wait()
    wait_for(lambda: gone(engines), 10)
    reader.join()


def _read_until_cut(server) -> None:
    with pytest.raises(Exception, match=r"IncompleteRead|reset|closed"):
        with server.stream(COMPLETIONS, LONG) as events:
            list(events)
        raise ConnectionError("the connection was closed without an error")
