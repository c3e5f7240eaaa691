"""What a client is told when something goes wrong.

Every error, of any layer, leaves as {"error": {"message", "type", "param", "code"}}: with an HTTP
status before a response has begun, as an event of the stream afterwards. `code` is set where
clients are known to read it.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from aphrodite_engine.errors import (
    ContextLengthError,
    EngineDeadError,
    EngineError,
    OverloadedError,
    RequestError,
)
from fastapi import HTTPException
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import Response

from aphrodite_server.fields import sent_as

RETRY_AFTER: Final = "5"
"""Seconds; SDKs wait so long before they try again."""

_TYPES: Final[Mapping[int, str]] = {
    400: "BadRequestError",
    401: "AuthenticationError",
    404: "NotFoundError",
    405: "MethodNotAllowedError",
    413: "RequestTooLargeError",
    500: "InternalServerError",
    503: "ServiceUnavailableError",
}
_log = logging.getLogger(__name__)


class ApiError(HTTPException):
    """An error as the client is told."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, dict(headers or {}))
        self.message = message
        self.param = param
        self.code = code

    @property
    def envelope(self) -> bytes:
        """The body: one line of JSON."""
        error = {
            "message": self.message,
            "type": _TYPES.get(self.status_code, "APIError"),
            "param": self.param,
            "code": self.code,
        }
        return json.dumps({"error": error}).encode()

    @property
    def response(self) -> Response:
        """The whole response."""
        return self._around(self.envelope)

    @property
    def kobold_envelope(self) -> bytes:
        """The same body, with what clients of the Kobold API read beside it."""
        kind = _TYPES.get(self.status_code, "APIError")
        detail = json.dumps({"detail": {"msg": self.message, "type": kind}}).encode()
        return self.envelope[:-1] + b", " + detail[1:]

    @property
    def kobold_response(self) -> Response:
        """The whole response, for clients of the Kobold API."""
        return self._around(self.kobold_envelope)

    def _around(self, body: bytes) -> Response:
        return Response(body, self.status_code, self.headers, "application/json")


def describe(error: Exception, *, started: bool = False) -> ApiError:
    """What a client is told of an exception; `started`: some of the answer has been made."""
    match error:
        case ApiError():
            return error
        case ContextLengthError():
            code = "context_length_exceeded"
            return ApiError(400, _context_message(str(error)), param=error.field, code=code)
        case RequestError():
            return ApiError(400, str(error), param=error.field)
        case RequestValidationError():
            return _invalid(error)
        case StarletteHTTPException():
            return _of_http(error)
        case OverloadedError():
            return ApiError(503, str(error), headers={"Retry-After": RETRY_AFTER})
        case EngineDeadError() if not started:
            return ApiError(503, str(error), headers={"Retry-After": RETRY_AFTER})
        case EngineError():
            return ApiError(500, str(error))
        case _:
            _log.error("defect in a request", exc_info=error)
            return ApiError(500, f"a defect of the server ended this request: {error!r:.200}")


def _context_message(message: str) -> str:
    """Clients look for the words "maximum context length"."""
    known = "maximum context length" in message
    return message if known else f"maximum context length exceeded: {message}"


def _of_http(error: StarletteHTTPException) -> ApiError:
    cause = error.__cause__
    message = str(error.detail)
    if isinstance(cause, UnicodeDecodeError):
        message = f"the body is not valid UTF-8 at byte {cause.start}; send JSON in UTF-8"
    elif isinstance(cause, RecursionError):
        message = "the body's JSON is nested too deeply; send a flatter one"
    elif isinstance(cause, ValueError):
        message = f"the body's JSON cannot be read: {cause}"
    return ApiError(error.status_code, message, headers=error.headers)


def _invalid(error: RequestValidationError) -> ApiError:
    """One sentence about the first place that is wrong; a union complains once per member."""
    problems = cast("Sequence[Mapping[str, Any]]", error.errors())
    first = problems[0]
    if first["type"] == "json_invalid":
        place, reason = first["loc"][-1], first["ctx"]["error"]
        return ApiError(400, f"the body is not valid JSON: {reason} at character {place}")
    if error.body is None:
        return ApiError(400, "the body is empty; send a JSON object")
    path = _path(first["loc"], error.body)
    if not path and isinstance(error.body, dict):
        return ApiError(400, f"a field's name is not valid Unicode, found {first['input']!r:.60}")
    if not path:
        return ApiError(400, f"the body must be a JSON object, found {first['input']!r:.60}")
    if first["type"] == "missing":
        return ApiError(400, f"{path} is missing", param=path)
    same = [p for p in problems if _path(p["loc"], error.body) == path]
    reasons = dict.fromkeys(_reason(problem) for problem in same)
    message = f"{path}: {' or '.join(reasons)}, found {first['input']!r:.60}"
    return ApiError(400, message, param=path)


def _reason(problem: Mapping[str, Any]) -> str:
    message = str(problem["msg"]).removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def _path(location: Sequence[str | int], body: object) -> str:
    """The part of an error's location that is in the body: names of union members are not."""
    path = ""
    here = body
    for place, step in enumerate(location[1:]):
        if isinstance(here, list) and isinstance(step, int):
            items = cast("list[object]", here)
            path, here = f"{path}[{step}]", items[step] if step < len(items) else None
        elif isinstance(here, dict):
            fields = cast("dict[str, object]", here)
            step = sent_as(str(step), fields) if place == 0 else str(step)
            missing = step not in fields
            if not missing or place == len(location) - 2:
                path = f"{path}.{step}" if path else step
            if not missing:
                here = fields[step]
    return path
