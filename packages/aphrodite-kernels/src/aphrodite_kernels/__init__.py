"""Packed-weight layouts and the ops of a language model, with a plain-torch reference and a compiled CPU library."""
