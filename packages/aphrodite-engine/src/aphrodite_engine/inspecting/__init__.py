"""What a checkpoint holds, what it takes, and whether kernels compute with it what they should."""
