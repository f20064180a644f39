"""An emulated device of each architecture; a test on it fails where the emulator has something to report."""

from collections.abc import Iterator

import pytest

from kaleido_fast.bench.ptx.driver import EmulatedDevice, emulated
from tests.kernels.conftest import golden_batch, golden_outputs, golden_rules, make_batch  # noqa: F401  fixtures

ARCHITECTURES = [pytest.param(arch, id=f"sm_{arch}", marks=() if arch == 90 else pytest.mark.slow) for arch in (80, 90, 100)]


@pytest.fixture(params=ARCHITECTURES)
def device(request: pytest.FixtureRequest) -> Iterator[EmulatedDevice]:
    with emulated(request.param) as device:
        yield device
    assert device.launches and not device.reports, device.reports
