"""Retrieval among all products of a split (SPEC 11)."""
