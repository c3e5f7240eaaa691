"""A server that remembers what it was sent and answers from a list."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Red."},
            "finish_reason": "stop",
            "logprobs": None,
        }
    ],
}
TEXT = {
    "id": "cmpl-1",
    "object": "text_completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "text": "Red.", "finish_reason": None, "logprobs": None}],
}
ANSWERS = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": TEXT,
    "/v1/tokenize": {"count": 2, "max_model_len": 64, "tokens": [5, 6]},
    "/v1/samplers/explain": {
        "object": "sampler.explanation",
        "created": 1,
        "model": "m",
        "greedy": False,
        "token": {"id": 5, "text": "Red"},
        "samplers": [
            {
                "name": "min_p",
                "fields": {"min_p": 0.05},
                "candidates": {"before": 64, "after": 1},
                "entropy": {"before": 2.5, "after": 0.0},
                "tokens": [{"id": 5, "text": "Red", "before": 0.75, "after": 1.0}],
            }
        ],
        "final": {
            "candidates": 1,
            "entropy": 0.0,
            "tokens": [{"id": 5, "text": "Red", "probability": 1.0}],
        },
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    },
    "/v1/detokenize": {"prompt": "Red."},
}


GETS = {
    "/v1/samplers": {
        "samplers": [
            {
                "name": "min_p",
                "number": 2,
                "order": 1,
                "docs": "Removes tokens.",
                "fields": [
                    {
                        "name": "min_p",
                        "type": "number",
                        "minimum": 0,
                        "maximum": 1,
                        "range": "at least 0 and at most 1",
                        "step": 0.01,
                        "default": 0.0,
                        "off": [0.0],
                        "docs": "",
                    }
                ],
            }
        ],
        "order": [],
        "presets": {"calm": {"temperature": 0.3}},
        "model_defaults": {"top_k": 20},
    }
}


class Recorder(ThreadingHTTPServer):
    """A server on a free port."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen = []
        self.healthy = True

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.seen.append((self.path, {k.lower(): v for k, v in self.headers.items()}, None))
        answer = json.dumps(GETS[self.path]).encode() if self.path in GETS else b""
        self.send_response(200 if self.server.healthy else 503)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.seen.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        answer = json.dumps(ANSWERS[self.path])
        streamed = body.get("stream")
        data = f"data: {answer}\n\ndata: [DONE]\n\n" if streamed else answer
        self.send_response(200)
        kind = "text/event-stream" if streamed else "application/json"
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data.encode())

    def log_message(self, format, *args):
        pass


@pytest.fixture
def server():
    with Recorder() as recorder:
        thread = threading.Thread(target=recorder.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield recorder
        recorder.shutdown()
        thread.join()
