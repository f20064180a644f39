"""What a user's machine gives: kernels and training steps timed against plainer ways to do the same work."""
