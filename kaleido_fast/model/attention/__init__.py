"""Attention over packed sequences (SPEC 7): `packed` is the one function, a file a package that it can be computed by."""
