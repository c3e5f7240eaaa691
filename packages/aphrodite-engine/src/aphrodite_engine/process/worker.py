"""The engine process: messages in, steps, news out.

It dies with its parent: its standard input is a pipe that the parent holds, and end-of-file there
means that nobody is left to serve.
"""

import gc
import logging
import os
import sys
import threading

import zmq

from aphrodite_engine.build import build_engine
from aphrodite_engine.engine import Engine
from aphrodite_engine.errors import ConfigError, ContextLengthError, OverloadedError, RequestError
from aphrodite_engine.loading.errors import loading_error
from aphrodite_engine.process.channel import Channel
from aphrodite_engine.process.messages import (
    Abort,
    Add,
    Failed,
    Hello,
    News,
    Progress,
    Ready,
    Refused,
    Rewind,
    Start,
    Stop,
    ToEngine,
    ToFront,
)

HEARTBEAT_SECONDS = 1.0
_log = logging.getLogger(__name__)


def main(endpoint: str) -> None:
    """Serve the parent at `endpoint` until it says stop or is gone."""
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    sys.setswitchinterval(0.0005)  # planner and runner threads hand over within a step
    channel: Channel[ToEngine, ToFront] = Channel(zmq.Context(), endpoint, ToEngine)
    channel.send(Hello())
    engine = _load(channel)
    if engine is not None:
        _serve(engine, channel)
        engine.close()
    channel.close()


def _exit_with_parent() -> None:
    # Unbuffered: a thread that holds the buffer's lock cannot be left behind at a regular exit.
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os._exit(0)


def _load(channel: Channel[ToEngine, ToFront]) -> Engine | None:
    start = channel.receive(None)
    if not isinstance(start, Start):
        return None
    try:
        engine, info = build_engine(
            start.config, start.end_tokens, lambda text: channel.send(Progress(text))
        )
    except Exception as error:
        known = loading_error(error)
        if known is None:
            _log.exception("loading failed")
            channel.send(Failed("internal", f"{type(error).__name__}: {error}"))
        else:
            kind = "config" if isinstance(known, ConfigError) else "model"
            channel.send(Failed(kind, str(known)))
        return None
    gc.freeze()  # the model is there to stay: no need to walk it again and again
    channel.send(Ready(info))
    return engine


def _serve(engine: Engine, channel: Channel[ToEngine, ToFront]) -> None:
    while True:
        busy = engine.unfinished or engine.prepare()
        wait = 0.0 if busy else HEARTBEAT_SECONDS
        message = channel.receive(wait)
        while message is not None:
            if isinstance(message, Stop):
                return
            _handle(message, engine, channel)
            message = channel.receive(0.0)
        outputs = engine.step() if engine.unfinished else []
        if outputs or wait:
            channel.send(News(outputs, engine.stats))


def _handle(message: ToEngine, engine: Engine, channel: Channel[ToEngine, ToFront]) -> None:
    match message:
        case Add(request):
            try:
                engine.add(request)
            except ContextLengthError as error:
                channel.send(Refused(request.id, "context", str(error), error.field))
            except RequestError as error:
                channel.send(Refused(request.id, "request", str(error), error.field))
            except OverloadedError as error:
                channel.send(Refused(request.id, "overloaded", str(error), None))
            except Exception as error:
                _log.exception("adding request %s failed", request.id)
                channel.send(Refused(request.id, "internal", f"{error}", None))
        case Abort(request_id, choice):
            engine.abort(request_id, choice)
        case Rewind(request_id, choice, kept, banned):
            engine.rewind(request_id, choice, kept, banned)
        case Start() | Stop():
            _log.error("unexpected message %s", type(message).__name__)
