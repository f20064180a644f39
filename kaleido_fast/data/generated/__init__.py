"""A catalogue of drawn fashion products whose every visible part is known: text, mask, boxes."""
