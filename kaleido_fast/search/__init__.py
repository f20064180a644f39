"""Search: embeddings of a catalogue in a folder, queries by a text or a photograph (SPEC 12)."""
