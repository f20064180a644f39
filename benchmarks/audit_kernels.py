"""Build every kernel ahead of time, without a GPU, and write what it became to results/compiled.json.

    python -m benchmarks.audit_kernels
"""

import json
import sys
from pathlib import Path

import triton

from benchmarks.compiled.audit import ARCHITECTURES, Audit, as_row, audit, problems
from benchmarks.compiled.builds import BUILDS

RESULTS = Path(__file__).with_name("results") / "compiled.json"


def versions() -> dict[str, str]:
    """What decides the figures beside our source."""
    return {"triton": triton.__version__}


def audit_all() -> tuple[list[Audit], list[str]]:
    """Every build on every architecture, and what is wrong with them."""
    found, wrong = [], []
    for build in BUILDS:
        for architecture in ARCHITECTURES:
            found.append(audit(build, architecture))
            wrong += problems(build, found[-1])
    return found, wrong


def main() -> int:
    found, wrong = audit_all()
    rows = ",\n".join(json.dumps(as_row(row)) for row in found)  # one a line, so that a change shows which
    RESULTS.write_text(f'{{"versions": {json.dumps(versions())}, "kernels": [\n{rows}\n]}}\n', encoding="utf-8")
    print("\n".join([f"{RESULTS.name}: {len(found)} builds", *wrong]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
