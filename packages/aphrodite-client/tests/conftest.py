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
    "/v1/detokenize": {"prompt": "Red."},
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
        self.send_response(200 if self.server.healthy else 503)
        self.send_header("content-length", "0")
        self.end_headers()

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
