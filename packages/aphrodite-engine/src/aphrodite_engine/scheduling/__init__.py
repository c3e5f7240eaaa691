"""Which rows run, with how many tokens, in which blocks."""
