"""One folder per backend; presence registers."""
