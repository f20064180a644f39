"""Evaluation: retrieval, recognition and the accuracy of each kaleido task (SPEC 9)."""
