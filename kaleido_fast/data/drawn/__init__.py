"""A generated catalogue: drawn products whose parts, boxes and words are known."""
