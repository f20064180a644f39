"""Batches: the stream, drawn texts, assembling, prefetching, upload, DALI, and a source for each kind of patches."""
