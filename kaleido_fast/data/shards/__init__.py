"""Shards: the manifest, reading and writing, the tokenizer and token rows."""
