"""What `data check` and `data show` look at."""
