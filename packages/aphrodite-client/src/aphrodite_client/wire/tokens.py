"""Answers of the token endpoints."""

from openai import BaseModel


class Tokens(BaseModel):
    """A text as tokens."""

    count: int
    max_model_len: int
    """Longest prompt and completion of the model, together."""
    tokens: list[int]
    token_strs: list[str] | None = None
    """The text of each token, if asked for."""


class Text(BaseModel):
    """Tokens as a text."""

    prompt: str
