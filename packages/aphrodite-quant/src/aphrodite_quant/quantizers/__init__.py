"""Quantisations that are written to disk: one file each, presence registers.

A file has `quantizer(options, shapes)`, which gives a `Quantizer` (quantizer.py) or refuses options
that the format does not have, or shapes that it cannot pack.
"""
