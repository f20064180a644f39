"""An emulated device of each architecture; a test on it fails where the emulator has something to report."""

from collections.abc import Iterator

import pytest

from kaleido_fast.bench.ptx.driver import EmulatedDevice, emulated

ARCHITECTURES = (80, 90, 100)


@pytest.fixture(params=ARCHITECTURES, ids="sm_{}".format)
def device(request: pytest.FixtureRequest) -> Iterator[EmulatedDevice]:
    with emulated(request.param) as device:
        yield device
    assert device.launches and not device.reports, device.reports
