"""Readers of catalogues, one file a format; readers.py names them."""
