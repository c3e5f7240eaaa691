"""An OpenAI-compatible server and the aphrodite command."""

__version__ = "0.1.0"
