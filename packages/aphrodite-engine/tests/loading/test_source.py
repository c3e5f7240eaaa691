"""The MODEL argument, against a hub of our own on this machine."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import huggingface_hub.constants
import pytest
from aphrodite_engine.errors import ModelError, ModelNotFoundError
from aphrodite_engine.loading.source import find_model_path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORIES = {
    "owner/directory": {
        "config.json": b"{}",
        "model-00001-of-00002.safetensors": b"one",
        "model-00002-of-00002.safetensors": b"two",
        "model.safetensors.index.json": b"{}",
        "consolidated.safetensors": b"the same again",
        "tokenizer.json": b"{}",
        "original/weights.safetensors": b"not wanted",
        "pytorch_model.bin": b"not wanted",
        "README.md": b"not wanted",
    },
    "owner/one-gguf": {"model.gguf": b"GGUF", "README.md": b"not wanted"},
    "owner/many-ggufs": {"a.Q4_0.gguf": b"small", "a.Q8_0.gguf": b"large"},
    "owner/split": {f"x-0000{i}-of-00003.gguf": b"part %d" % i for i in (2, 1, 3)},
    "owner/pickles": {
        "pytorch_model.bin": b"torch",
        "config.json": b"{}",
        "training_args.bin": b"not wanted",
    },
    "owner/nothing": {"flax_model.msgpack": b"no"},
}


class Hub(BaseHTTPRequestHandler):
    """The parts of the hub's HTTP interface that downloads use."""

    protocol_version = "HTTP/1.1"
    requests: ClassVar[list[str]] = []

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.partition("?")[0]
        self.requests.append(f"{self.command} {self.path}")
        if path.startswith("/api/models/"):
            self.answer_api(path.removeprefix("/api/models/"))
        else:
            repository, _, rest = path.strip("/").partition("/resolve/")
            self.answer_file(repository, rest.partition("/")[2])

    def answer_api(self, path):
        owner, name, *rest = path.split("/")
        repository = f"{owner}/{name}"
        if name == "gated":
            return self.error(403, "GatedRepo")
        if name == "broken":
            return self.answer(500, b"out of order")
        if repository not in REPOSITORIES:
            return self.error(401, "RepoNotFound")
        revision = rest[1] if len(rest) > 1 else "main"
        if revision not in ("main", COMMIT):
            return self.error(404, "RevisionNotFound")
        files = REPOSITORIES[repository]
        if rest[:1] == ["tree"]:
            tree = [
                {"type": "file", "path": path, "size": len(data), "oid": etag(data)}
                for path, data in files.items()
            ]
            return self.answer(200, json.dumps(tree).encode())
        info = {
            "id": repository,
            "modelId": repository,
            "sha": COMMIT,
            "private": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": [{"rfilename": path} for path in files],
        }
        return self.answer(200, json.dumps(info).encode())

    def answer_file(self, repository, path):
        data = REPOSITORIES.get(repository, {}).get(path)
        if data is None:
            return self.error(404, "EntryNotFound")
        return self.answer(200, data)

    def error(self, status, code):
        self.answer(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code})

    def answer(self, status, body, headers=None):
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("ETag", f'"{etag(body)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *arguments):
        """Silence."""


def etag(data):
    return hashlib.sha1(data).hexdigest()


def point_to(address, monkeypatch):
    """What HF_ENDPOINT does when the hub library is imported."""
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        address + "/{repo_id}/resolve/{revision}/{filename}",
    )


@pytest.fixture
def hub(monkeypatch):
    Hub.requests.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    point_to(address, monkeypatch)
    yield Hub
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def offline(monkeypatch):
    def go():
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    return go


def find(model, cache, revision=None):
    return find_model_path(model, revision, str(cache))


def files_in(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def test_of_a_directory_only_what_is_needed(hub, tmp_path):
    folder = find("owner/directory", tmp_path)
    assert files_in(folder) == {
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
    }
    assert (folder / "model-00002-of-00002.safetensors").read_bytes() == b"two"


def test_pickles_where_there_is_nothing_else(hub, tmp_path):
    assert files_in(find("owner/pickles", tmp_path)) == {"config.json", "pytorch_model.bin"}


def test_the_one_gguf(hub, tmp_path):
    assert find("owner/one-gguf", tmp_path).read_bytes() == b"GGUF"


def test_a_named_gguf(hub, tmp_path):
    file = find("owner/many-ggufs:a.Q8_0.gguf", tmp_path)
    assert file.read_bytes() == b"large"
    assert files_in(file.parent) == {"a.Q8_0.gguf"}


def test_all_parts_of_a_split_gguf(hub, tmp_path):
    first = find("owner/split", tmp_path)
    assert first.name == "x-00001-of-00003.gguf"
    assert len(files_in(first.parent)) == 3
    assert find("owner/split:x-00002-of-00003.gguf", tmp_path) == first


def test_a_revision(hub, tmp_path):
    assert find("owner/one-gguf", tmp_path, revision=COMMIT).parent.name == COMMIT


def test_the_token_is_sent(hub, tmp_path, monkeypatch):
    seen = []
    original = Hub.answer_api

    def answer(self, path):
        seen.append(self.headers.get("authorization"))
        original(self, path)

    monkeypatch.setattr(Hub, "answer_api", answer)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    find("owner/one-gguf", tmp_path)
    assert set(seen) == {"Bearer hf_secret"}


@pytest.mark.parametrize("model", ["owner/directory", "owner/one-gguf", "owner/split"])
def test_what_is_cached_needs_no_hub(model, hub, tmp_path, offline):
    path = find(model, tmp_path)
    hub.requests.clear()
    offline()
    assert find(model, tmp_path) == path
    assert not hub.requests


def test_an_unreachable_hub_is_replaced_by_the_cache(hub, tmp_path, monkeypatch):
    path = find("owner/one-gguf", tmp_path)
    point_to("http://127.0.0.1:9", monkeypatch)
    assert find("owner/one-gguf", tmp_path) == path


REFUSALS = {
    "owner/missing": (ModelNotFoundError, "owner/missing is not on the hub, or it is private"),
    "owner/gated": (ModelNotFoundError, "owner/gated is gated: accept its terms"),
    "owner/many-ggufs": (ModelError, "name one as owner/many-ggufs:FILE of a.Q4_0.gguf, a.Q8_0"),
    "owner/one-gguf:b.gguf": (ModelNotFoundError, "has no file b.gguf; its GGUF files are model"),
    "owner/nothing": (ModelError, "holds no weights (.safetensors, .gguf or .bin); found: flax_m"),
    "owner/broken": (ModelNotFoundError, "is not in the download cache, and the hub cannot be"),
    "no-such-name": (ModelNotFoundError, "no-such-name does not exist; give a path, `demo`, or"),
    "models/none.gguf": (ModelNotFoundError, "models/none.gguf does not exist"),
    "./owner/name/more": (ModelNotFoundError, "does not exist"),
    "./name": (ModelNotFoundError, "./name does not exist; give a path, `demo`, or"),
    "../name": (ModelNotFoundError, "../name does not exist; give a path, `demo`, or"),
}


@pytest.mark.parametrize("model", REFUSALS)
def test_refusals_are_sentences(model, hub, tmp_path):
    kind, message = REFUSALS[model]
    with pytest.raises(kind) as caught:
        find(model, tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_revision(hub, tmp_path):
    with pytest.raises(ModelNotFoundError, match="owner/one-gguf has no revision elsewhere"):
        find("owner/one-gguf", tmp_path, revision="elsewhere")


def test_offline_and_not_cached(hub, tmp_path, offline):
    offline()
    with pytest.raises(ModelNotFoundError, match="not in the download cache, and the hub cannot"):
        find("owner/one-gguf", tmp_path)
    assert not hub.requests


def test_no_network_and_not_cached(tmp_path, monkeypatch):
    point_to("http://127.0.0.1:9", monkeypatch)
    with pytest.raises(ModelNotFoundError, match="not in the download cache, and the hub cannot"):
        find("owner/one-gguf", tmp_path)


def test_a_path_is_itself(tmp_path):
    assert find(str(tmp_path), tmp_path) == tmp_path


def test_the_demo_is_found_by_path():
    path = find_model_path("demo", None, None)
    assert path.name == "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert path.stat().st_size > 90_000_000
