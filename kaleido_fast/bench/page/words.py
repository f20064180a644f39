"""Words that the sections of bench.md share."""

MISSING = "Not measured yet."
WAYS = {"kaleido_fast": "ours", "eager": "reference, eager", "compiled": "reference, compiled", "resizes": "a resize a cell",
        "reference": "reference path", "visualbert": "VisualBERT, eager", "visualbert-compiled": "VisualBERT, compiled"}
