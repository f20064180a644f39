"""Parameters of a test, most of which belong to `make test-slow`."""

from collections.abc import Collection, Mapping
from typing import Any

import pytest

SLOW = (pytest.mark.slow,)


def named(cases: Mapping[str, Any], quick: Collection[str]) -> list[Any]:
    """A parameter each; all but `quick` are slow."""
    assert set(quick) <= set(cases), quick
    return [pytest.param(case, id=name, marks=() if name in quick else SLOW) for name, case in cases.items()]
