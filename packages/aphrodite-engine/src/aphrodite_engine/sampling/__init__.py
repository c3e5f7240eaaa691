"""From logits to tokens: one file per stage."""
