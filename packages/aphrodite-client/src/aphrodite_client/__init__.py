"""A typed client for Aphrodite servers, on top of the official openai package."""
