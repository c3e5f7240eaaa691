"""What SillyTavern sends, against the real server: streams as it reads them, and bans that hold."""

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.weights

ROOT = Path(__file__).parents[1]
RECORDED = json.loads(
    (ROOT / "packages" / "aphrodite-server" / "tests" / "sillytavern_bodies.json").read_text()
)


def told(server, path, body):
    """The text of a stream, read as the client reads it, and its last event."""
    answer = server.request("POST", path, body)
    assert answer.status == 200, answer.body
    *parts, rest = answer.body.decode().split("\n\n")
    assert rest == ""
    events = [json.loads(part.split("data: ", 1)[1]) for part in parts if part != "data: [DONE]"]
    if path.startswith("/api"):
        return "".join(event["token"] for event in events), events[-1]
    choices = [event["choices"][0] for event in events]
    return "".join(choice["text"] for choice in choices), choices[-1]


@pytest.mark.parametrize(
    "recorded",
    [one for one in RECORDED if one["body"].get("stream") or one["path"].endswith("stream")],
    ids=lambda one: f"{one['backend']}-{one['settings']}",
)
def test_it_streams(server, recorded):
    body = {**recorded["body"], "prompt": "In the forest, said Seraphina,"}
    if "model" in body:
        body["model"] = "demo"
    text, last = told(server, recorded["path"], body)
    assert text
    for banned in body.get("banned_strings", ()):
        assert banned not in text.lower()
    if recorded["settings"] == "eos" and last["finish_reason"] != "length":
        assert last["finish_reason"] == "stop"
        assert last.get("stop_reason", "\nUser:") in ("\nUser:", "\n***"), "end-of-text is banned"
    assert told(server, recorded["path"], body)[0] == text, "seeded"
