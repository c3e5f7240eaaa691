"""Readers for community-quantised checkpoints: GGUF, safetensors, and the formats in them."""
