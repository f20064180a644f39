"""What makes embed's gradient the same on every run: nothing is added up by an atomic, whose order is the machine's."""

import json

from benchmarks.audit_kernels import RESULTS
from benchmarks.compiled.audit import ARCHITECTURES
from benchmarks.compiled.builds_embed import EMBED


def test_no_kernel_of_embed_has_an_atomic() -> None:
    names = {build.name for build in EMBED}
    rows = [row for row in json.loads(RESULTS.read_text(encoding="utf-8"))["kernels"] if row["kernel"] in names]
    assert len(rows) == len(names) * len(ARCHITECTURES) and not any(row["atomics"] for row in rows)
