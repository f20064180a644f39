"""A catalogue as people have it: readers, photographs, locking, and `prepare`, which makes shards of it."""
