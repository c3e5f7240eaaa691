"""A continuous-batching inference engine with paged attention and every advanced sampler."""
