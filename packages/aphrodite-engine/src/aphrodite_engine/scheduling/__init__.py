"""What runs in each step, and who holds which KV block."""
