"""Writing a quantised checkpoint: calibration, the layers one after the other, the files."""
