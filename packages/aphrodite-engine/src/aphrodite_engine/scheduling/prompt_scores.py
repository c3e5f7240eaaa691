"""Log-probabilities of prompts, gathered chunk by chunk until the first token is out.

Only the first completion of a request scores the prompt; it reads no shared blocks before that is
done, since what is not computed has no logits.
"""

from aphrodite_engine.outputs import RowOutput
from aphrodite_engine.plan import RowWork
from aphrodite_engine.request import Request
from aphrodite_engine.sampling.token_logprobs import TokenLogprobs


class PromptScores:
    """What is known so far of the prompts that are being scored."""

    def __init__(self) -> None:
        # Of the tokens 1 … of each prompt, without a gap.
        self._found: dict[Request, list[TokenLogprobs]] = {}

    def __contains__(self, request: Request) -> bool:
        return request in self._found

    def expect(self, request: Request) -> None:
        """Begin, if the request asks for it."""
        if request.params.prompt_logprobs is not None:
            self._found[request] = []

    def wanted(self, request: Request, start: int, stop: int) -> bool:
        """The positions start … stop - 1 score prompt tokens that are not known yet."""
        found = self._found.get(request)
        last = len(request.prompt) - 1
        return found is not None and start < last and min(stop, last) > len(found)

    def take(self, request: Request, work: RowWork, row: RowOutput) -> None:
        """Add what a chunk scored; after a preemption some of it is known."""
        found = self._found[request]
        found += row.prompt_logprobs[len(found) - work.start :]

    def hand_over(self, request: Request) -> list[TokenLogprobs]:
        """All of them, once; the prompt is computed."""
        found = self._found.pop(request, None)
        if found is None:
            return []
        assert len(found) == len(request.prompt) - 1, "a prompt token was not scored"
        return found

    def forget(self, request: Request) -> None:
        """The request is over."""
        self._found.pop(request, None)
