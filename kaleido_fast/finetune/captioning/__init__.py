"""The downstream task captioning: its masks, its step, its scores (SPEC 11)."""
