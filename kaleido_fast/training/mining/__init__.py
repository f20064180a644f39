"""Mined negatives: products embedded, and the texts that are hard to tell apart from each drawn (SPEC 10)."""
