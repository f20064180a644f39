"""Every kernel, built for every architecture: no spills, the widths and registers it was written for; the results file."""

import json

import pytest

from benchmarks.audit_kernels import RESULTS, versions
from benchmarks.compiled.audit import ARCHITECTURES, Build, as_row, audit, problems
from benchmarks.compiled.builds import BUILDS


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("build", BUILDS, ids=lambda build: build.name)
def test_machine_code(build: Build, architecture: int) -> None:
    found = audit(build, architecture)
    assert problems(build, found) == []
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    if results["versions"] == versions():  # another compiler gives other figures, within the bounds above
        assert as_row(found) in results["kernels"], "run python -m benchmarks.audit_kernels"


def test_names_are_unique_and_the_results_file_is_whole() -> None:
    names = [build.name for build in BUILDS]
    assert len(set(names)) == len(names)
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))["kernels"]
    assert [(row["kernel"], row["sm"]) for row in rows] == [(name, sm) for name in names for sm in ARCHITECTURES]
