"""One file per quantisation format; presence registers."""
