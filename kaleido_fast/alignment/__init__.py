"""The attention-based alignment generator: a captioner whose attention says which word goes with which patches (SPEC 5)."""
