"""Batches: the stream, drawn texts, the host's part, upload, DALI, and a source for each kind of patches."""
