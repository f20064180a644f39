"""Captions: the encoder under the prefix mask, and decoding with keys and values that are kept (SPEC 11)."""
