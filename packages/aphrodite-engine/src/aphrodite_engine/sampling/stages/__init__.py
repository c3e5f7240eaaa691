"""One file per sampler stage; presence registers."""
