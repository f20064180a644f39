"""`kaleido-fast parity`: the fast path against the plain one, on a user's machine and settings."""
