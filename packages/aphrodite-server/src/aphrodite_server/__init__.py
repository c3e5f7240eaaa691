"""An OpenAI-compatible server and the aphrodite command."""
