"""From a catalogue to batches on the training device: readers, locking, shards, stream, DALI."""
