"""Resident memory: what is written to is seen, and the peak can be forgotten."""

from pathlib import Path

import numpy as np
import pytest

from kaleido_fast import process_memory
from kaleido_fast.process_memory import forget_peak, peak_resident_bytes, resident_bytes

SIZE = 64 << 20


def test_the_peak_is_that_since_it_was_forgotten() -> None:
    try:
        forget_peak()
    except OSError as error:
        pytest.skip(f"this system keeps its peak: {error}")
    before = resident_bytes()
    block = np.ones(SIZE, np.uint8)
    assert resident_bytes() - before > 0.9 * SIZE
    del block
    assert peak_resident_bytes() - before > 0.9 * SIZE > resident_bytes() - before
    forget_peak()
    assert peak_resident_bytes() - before < 0.5 * SIZE


def test_a_system_that_does_not_say_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "status").write_text("Name: x\n")
    monkeypatch.setattr(process_memory, "STATUS", tmp_path / "status")
    with pytest.raises(ValueError, match="status: no VmHWM; memory is measured on Linux"):
        peak_resident_bytes()
