"""The memories of an emulated kernel: global memory with bounds, shared memory that reports races.

A race is: between two barriers two warps touch a byte, a write among them. Two lanes of one warp doing so without a
synchronisation of the warp between is reported apart; so is reading a byte that nobody wrote.
"""

from collections import Counter

import numpy as np

NEAR = 4096  # bytes around a region in which a stray address is told as belonging to it
UNWRITTEN = 0xCD  # what shared memory holds before it is written


class OutOfBounds(MemoryError):
    """An access outside of every tensor, or not aligned to its own size."""


class GlobalMemory:
    """Byte regions at their addresses: the tensors of a launch."""

    def __init__(self) -> None:
        self._regions: list[tuple[int, np.ndarray, str]] = []

    def add(self, address: int, data: np.ndarray, name: str) -> None:
        """Make `data` (bytes,) uint8 reachable at `address`."""
        self._regions.append((address, data, name))

    def load(self, addresses: np.ndarray, size: int, where: str) -> np.ndarray:
        """(lanes, size) uint8 from (lanes,) uint64 addresses."""
        region = self._common(addresses, size)
        if region is not None:
            data, offsets = region
            return data[offsets[:, None] + np.arange(size)]
        each = [self._single(int(address), size, where) for address in addresses]
        return np.stack([data[offset : offset + size] for data, offset in each])

    def store(self, addresses: np.ndarray, values: np.ndarray, where: str) -> None:
        """Write (lanes, size) uint8; of two lanes at one address the later wins."""
        size = values.shape[1]
        region = self._common(addresses, size)
        if region is not None:
            data, offsets = region
            data[offsets[:, None] + np.arange(size)] = values
            return
        for address, value in zip(addresses, values, strict=True):
            data, offset = self._single(int(address), size, where)
            data[offset : offset + size] = value

    def _common(self, addresses: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray] | None:
        """A region that all lie in, and their offsets: nearly always there is one."""
        least, most = int(addresses.min()), int(addresses.max())
        for first, data, _ in self._regions:
            if first <= least and most + size <= first + len(data):
                return data, (addresses - np.uint64(first)).astype(np.int64)
        return None

    def _single(self, address: int, size: int, where: str) -> tuple[np.ndarray, int]:
        for first, data, _ in self._regions:
            if first <= address and address + size <= first + len(data):
                return data, address - first
        near = [f"{name} of {len(data)} bytes at {address - first}" for first, data, name in self._regions
                if first - NEAR <= address < first + len(data) + NEAR]
        raise OutOfBounds(f"{size} bytes at {address:#x}, outside of every tensor (near: {', '.join(near) or 'none'}); {where}")


class SharedMemory:
    """A block's shared memory; what is wrong with an access is counted in `reports`, by its text."""

    def __init__(self, size: int, warps: np.ndarray, reports: Counter[str]) -> None:
        """`warps` (threads,) is each thread's warp."""
        self.data = np.full(size, UNWRITTEN, np.uint8)
        self._written = np.zeros(size, bool)
        self._warps, self._reports = warps, reports
        self.block_barrier()

    def block_barrier(self) -> None:
        """All threads have met: what was touched before cannot race with what follows."""
        self._writer = np.full(len(self.data), -1, np.int32)  # last warp that wrote a byte
        self._readers = np.zeros(len(self.data), np.int64)  # a bit each warp
        self.warp_barrier()

    def warp_barrier(self) -> None:
        """The lanes of each warp have met."""
        self._lane_writer = np.full(len(self.data), -1, np.int32)
        self._lane_reader = np.full(len(self.data), -1, np.int32)  # last thread that read a byte, -2: several

    def read(self, addresses: np.ndarray, size: int, threads: np.ndarray, where: str) -> np.ndarray:
        """(lanes, size) uint8 that `threads` (lanes,) read at `addresses` (lanes,)."""
        places, places_flat, warp, thread = self._places(addresses, size, threads, where)
        writer = self._writer[places_flat]
        self._report((writer >= 0) & (writer != warp), "RACE: a warp reads what another wrote", where)
        lane_writer = self._lane_writer[places_flat]
        near = (lane_writer >= 0) & (lane_writer != thread) & (writer == warp)
        self._report(near, "a lane reads what another wrote without a sync", where)
        self._report(~self._written[places_flat], "a byte is read that nobody wrote", where)
        np.bitwise_or.at(self._readers, places_flat, np.int64(1) << warp.astype(np.int64))
        before = self._lane_reader[places_flat]
        self._lane_reader[places_flat] = np.where((before == -1) | (before == thread), thread, -2)
        return self.data[places]

    def write(self, addresses: np.ndarray, values: np.ndarray, threads: np.ndarray, where: str) -> None:
        """Write (lanes, size) uint8."""
        places, places_flat, warp, thread = self._places(addresses, values.shape[1], threads, where)
        writer, readers, this_warp = self._writer[places_flat], self._readers[places_flat], np.int64(1) << warp.astype(np.int64)
        far = (writer >= 0) & (writer != warp) | (readers & ~this_warp != 0)
        self._report(far, "RACE: a warp writes what another touched", where)
        lane_writer, lane_reader = self._lane_writer[places_flat], self._lane_reader[places_flat]
        near = (lane_writer >= 0) & (lane_writer != thread) & (writer == warp)
        near |= (lane_reader != -1) & (lane_reader != thread) & (readers & this_warp != 0)
        self._report(near, "a lane writes what another touched without a sync", where)
        self._writer[places_flat], self._lane_writer[places_flat], self._written[places_flat] = warp, thread, True
        self.data[places] = values

    def _places(
        self, addresses: np.ndarray, size: int, threads: np.ndarray, where: str
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        places = addresses.astype(np.int64)[:, None] + np.arange(size)
        if places.size and (places.min() < 0 or places.max() >= len(self.data)):
            raise OutOfBounds(f"shared bytes {places.min()}..{places.max()} of {len(self.data)}; {where}")
        return places, places.ravel(), np.repeat(self._warps[threads], size), np.repeat(threads, size)

    def _report(self, wrong: np.ndarray, what: str, where: str) -> None:
        if wrong.any():
            self._reports[f"{what}; {where}"] += 1
