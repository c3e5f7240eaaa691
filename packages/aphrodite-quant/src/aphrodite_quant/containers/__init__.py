"""How the bytes of tensors lie in files: memory-mapped, read lazily, never copied."""
