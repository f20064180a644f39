"""A run's folder: what it holds, who owns it, what is written into it."""
