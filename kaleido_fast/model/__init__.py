"""Kaleido-BERT: patch encoders, embeddings, packed encoder, heads (SPEC 7)."""
