"""Ask the demo server one question, as a stream, and check the answer; standard library only."""

import json
import os
import sys
import time
import urllib.error
import urllib.request

URL = "http://127.0.0.1:2242"


def wait_until_healthy(server: int, seconds: float) -> None:
    """Return once /health answers 200; fail if the server exits first."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{URL}/health", timeout=5) as reply:
                if reply.status == 200:
                    return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            os.kill(server, 0)  # ProcessLookupError: the server is gone
            time.sleep(0.5)
    sys.exit(f"the demo server did not answer within {seconds:.0f} s")


def ask(question: str) -> str:
    """The streamed answer, after checking the shape of the stream."""
    body = {
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": question},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
        "max_tokens": 40,
    }
    request = urllib.request.Request(
        f"{URL}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream"), reply.headers
        events = [
            line[6:] for line in reply.read().decode().splitlines() if line.startswith("data: ")
        ]
    assert events.pop() == "[DONE]", events[-1:]
    chunks = [json.loads(event) for event in events]
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    usage = chunks.pop()
    assert usage["choices"] == [] and usage["usage"]["completion_tokens"] > 0, usage
    assert chunks[-1]["choices"][0]["finish_reason"] in ("stop", "length"), chunks[-1]
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)


def main() -> None:
    wait_until_healthy(int(sys.argv[1]), 600)
    answer = ask("What is the capital of France?")
    print("The demo says:", answer)
    assert "Paris" in answer, answer


if __name__ == "__main__":
    main()
