"""Writing trellis-coded weights; how they are read is in the layouts."""
