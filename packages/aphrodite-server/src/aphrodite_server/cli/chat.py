"""`aphrodite chat`: a conversation with a running server, in the terminal."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from aphrodite_server.cli.flags import Parser

Conversation = list[dict[str, str]]
_TIMEOUT: Final = httpx.Timeout(600, connect=10)


class ChatError(Exception):
    """The server did not answer as it should; the message is for the user."""


@dataclass
class Chat:
    """A conversation with one server."""

    client: httpx.Client
    model: str | None
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    messages: Conversation = field(default_factory=Conversation)

    def ask(self, text: str) -> Iterator[str]:
        """The answer, piece by piece; afterwards the conversation holds both turns."""
        asked = {"role": "user", "content": text}
        body = {"messages": [*self.messages, asked], "stream": True, **self.settings}
        if self.model is not None:
            body["model"] = self.model
        said: list[str] = []
        for piece in _pieces(self.client, body):
            said.append(piece)
            yield piece
        self.messages += [asked, {"role": "assistant", "content": "".join(said)}]


def main(arguments: Sequence[str]) -> int:
    """Talk until Ctrl-D; the exit code."""
    options = _parser().parse_args(arguments)
    headers = {"Authorization": f"Bearer {options.api_key}"} if options.api_key else {}
    settings = {"temperature": options.temperature, "max_tokens": options.max_tokens}
    with httpx.Client(base_url=api_url(options.url), headers=headers, timeout=_TIMEOUT) as client:
        chat = Chat(
            client,
            options.model_name,
            {name: value for name, value in settings.items() if value is not None},
        )
        if options.system_prompt:
            chat.messages.append({"role": "system", "content": options.system_prompt})
        if options.quick is not None:
            return _once(chat, options.quick)
        return _converse(chat)


def api_url(url: str) -> str:
    """Where the API is: an address without a path is the server's, as a browser has it."""
    server = url.rstrip("/")
    return f"{server}/v1" if "/" not in server.partition("://")[2] else server


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="aphrodite chat", description="Talk to a running server.")
    parser.add_argument(
        "--url", default="http://localhost:2242", help="the server (default %(default)s)"
    )
    parser.add_argument("--api-key", metavar="KEY", help="if the server wants one")
    parser.add_argument(
        "--model-name", metavar="NAME", help="which model (default: the served one)"
    )
    parser.add_argument("--system-prompt", metavar="TEXT", help="what the model is told first")
    parser.add_argument("--temperature", type=float, metavar="T", help="how it draws; 0: no chance")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="longest answer")
    parser.add_argument("-q", "--quick", metavar="TEXT", help="ask this once, and exit")
    return parser


def _once(chat: Chat, text: str) -> int:
    try:
        _show(chat.ask(text))
    except KeyboardInterrupt:
        return 130
    except ChatError as error:
        print(f"aphrodite: error: {error}", file=sys.stderr)
        return 1
    return 0


def _converse(chat: Chat) -> int:
    print("Ctrl-C stops an answer, Ctrl-D ends the conversation.", file=sys.stderr)
    while True:
        try:
            text = input("> ")
        except EOFError:
            print()
            return 0
        except KeyboardInterrupt:
            print()
            continue
        if not text.strip():
            continue
        try:
            _show(chat.ask(text))
        except KeyboardInterrupt:
            print()
        except ChatError as error:
            print(f"aphrodite: error: {error}", file=sys.stderr)


def _show(pieces: Iterator[str]) -> None:
    for piece in pieces:
        print(piece, end="", flush=True)
    print()


def _pieces(client: httpx.Client, body: dict[str, Any]) -> Iterator[str]:
    try:
        with client.stream("POST", "chat/completions", json=body) as response:
            if response.status_code != 200:
                response.read()
                raise ChatError(_told(response.text) or f"HTTP status {response.status_code}")
            for line in response.iter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    yield _text(line.removeprefix("data: "))
    except httpx.ConnectError:
        raise ChatError(
            f"no server answers at {client.base_url}; start one with `aphrodite run MODEL`, "
            "or name another with --url"
        ) from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ChatError(f"the connection to {client.base_url} failed: {error}") from None


def _text(data: str) -> str:
    error = _told(data)
    if error is not None:
        raise ChatError(error)
    choices = json.loads(data)["choices"]
    return choices[0]["delta"].get("content") or "" if choices else ""


def _told(data: str) -> str | None:
    """The message of an error envelope; None: it is none."""
    try:
        return str(json.loads(data)["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return None
