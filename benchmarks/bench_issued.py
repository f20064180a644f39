"""Count what compiled kernels issue and move at the base shape, without a GPU, and write it to results/issued.json.

    python -m benchmarks.bench_issued

Minutes on one core. Figures a unit (row, sample, ...) for each kernel, and for each operation at the size of the goals what
issuing and memory take at least.
"""

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.audit_kernels import versions
from benchmarks.compiled.audit import ARCHITECTURES
from benchmarks.compiled.issued import count, workloads
from benchmarks.compiled.issued_sizes import operations

RESULTS = Path(__file__).with_name("results") / "issued.json"


def count_all() -> list[dict[str, Any]]:
    """The rows of every workload on every architecture."""
    rows = []
    for name, workload in workloads().items():
        for architecture in ARCHITECTURES:
            rows += count(name, workload, architecture)
        print(name, flush=True)
    return rows


def main() -> int:
    rows = count_all()
    kernels, whole = (",\n".join(json.dumps(row) for row in part) for part in (rows, operations(rows)))
    RESULTS.write_text(f'{{"versions": {json.dumps(versions())}, "operations": [\n{whole}\n], "kernels": [\n{kernels}\n]}}\n',
                       encoding="utf-8")
    print(f"{RESULTS.name}: {len(rows)} kernels; python benchmarks/render.py puts them into bench.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
