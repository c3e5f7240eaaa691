"""Quantisations of plain weights while they are loaded: one file each, presence registers.

A file has `PER_WEIGHT`, the bytes that a weight takes, and `quantize(weight)`, which works on the
device that the weight is on.
"""
