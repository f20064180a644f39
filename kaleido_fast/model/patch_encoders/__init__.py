"""Patch encoders: a normalised patch becomes F numbers (SPEC 2.5); one a file, `build` picks."""
