"""Writing blocks of the ggml family; how they are read is in the layouts."""
