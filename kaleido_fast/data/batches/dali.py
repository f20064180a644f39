"""DALI: JPEG bytes to locked, resized squares (SPEC 2.1 and 2.2). The one door to nvidia.dali.

It is imported when photographs are asked for, not with what may need some.

decode -> slice (padded) -> erase what lies outside the photograph with its fill colour -> resize: triangle filter with
antialiasing, taps beyond the edge clamped. On a CPU (device_id None) or decoding on the GPU with the same file.
"""

from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import nvidia.dali.fn as fn
import nvidia.dali.math as dmath
import nvidia.dali.types
import torch
from nvidia.dali import pipeline_def
from torch import Tensor

from kaleido_fast.data.batches.jpeg_batch import GREY, JpegBatch
from kaleido_fast.devices import exact_device

types: Any = nvidia.dali.types  # whose names are made when it is imported
Carried = TypeVar("Carried")


class Decoded(NamedTuple, Generic[Carried]):
    """A batch that came through."""

    carried: Carried
    squares: Tensor  # (B, S, S, 3) uint8
    broken: list[int]  # indices of samples that could not be decoded; their squares are grey


class SquareDecoder(Generic[Carried]):
    """Runs batches through DALI, some ahead of who asks.

    Args:
        source: gives the i-th batch, and what is to come out beside its squares; must not raise (an exception would lose
            batches that are already on their way).
        image_size: S.
        device: where the squares come out; a GPU decodes them itself.
        threads: DALI's CPU threads; prefetch: batches decoded ahead.
    """

    def __init__(
        self, source: Callable[[int], tuple[Carried, JpegBatch]], batch_size: int, image_size: int, device: torch.device,
        threads: int, prefetch: int,
    ) -> None:
        self._size, self._device, self._threads = image_size, exact_device(device), threads
        self._pending: dict[int, tuple[Carried, JpegBatch]] = {}
        self._source, self._number = source, 0
        self._pipeline = _build(self._feed, batch_size, image_size, self._device, threads, prefetch)

    def __iter__(self) -> Iterator[Decoded[Carried]]:
        """Batch by batch, without end."""
        while True:
            number, self._number = self._number, self._number + 1
            try:
                squares, broken = self._run(self._pipeline), list[int]()
            except RuntimeError:
                # With the dynamic executor only this batch is lost; the following ones arrive whole and in order.
                squares, broken = self._rescue(self._pending[number][1])
            carried, _ = self._pending.pop(number)
            yield Decoded(carried, squares, broken)

    def _run(self, pipeline: Any) -> Tensor:
        """A batch's squares, in DALI's own memory, ordered on the stream of the thread that asks.

        On a GPU a run without a stream gives outputs that are done, and takes their memory again, for pictures that are
        decoded ahead, as soon as Python drops them: while `cut` may still wait on the device to read them. Outputs of a
        stream go back behind all that was enqueued there before they were dropped; nor does the host wait for them.
        """
        on_stream = (torch.cuda.current_stream(self._device),) if self._device.type == "cuda" else ()
        return torch.from_dlpack(pipeline.run(*on_stream)[0].as_tensor())

    def _feed(self, number: int) -> tuple[Any, ...]:
        _, jpegs = self._pending[number] = self._source(number)
        return _arrays(jpegs)

    def _rescue(self, batch: JpegBatch) -> tuple[Tensor, list[int]]:
        """Decode a failed batch one by one: those that fail again become grey."""
        squares, broken = [], []
        for index in range(len(batch.data)):
            one = batch.one(index)
            try:
                pipeline = _build(_always(one), 1, self._size, self._device, self._threads, prefetch=1)
                squares.append(self._run(pipeline))
            except RuntimeError:
                shape = (1, self._size, self._size, 3)
                squares.append(torch.full(shape, GREY, dtype=torch.uint8, device=self._device))
                broken.append(index)
        return torch.cat(squares), broken


def _always(batch: JpegBatch) -> Callable[[int], tuple[Any, ...]]:
    """A source that gives one batch again and again."""
    return lambda number: _arrays(batch)


def _arrays(batch: JpegBatch) -> tuple[Any, ...]:
    jpegs = [np.frombuffer(data, np.uint8) for data in batch.data]
    return jpegs, list(batch.start), list(batch.side), list(batch.fill)


def _build(
    source: Callable[[int], Any], batch_size: int, image_size: int, device: torch.device, threads: int, prefetch: int
) -> Any:
    cuda = device.type == "cuda"
    pipeline = _squares(
        source, image_size, cuda, batch_size=batch_size, num_threads=threads, prefetch_queue_depth=prefetch,
        device_id=device.index if cuda else None, exec_dynamic=True)
    pipeline.build()
    return pipeline


@pipeline_def
def _squares(source: Callable[[int], Any], image_size: int, cuda: bool) -> Any:
    jpeg, start, side, fill = fn.external_source(
        source=source, num_outputs=4, batch=True, ndim=1, dtype=[types.UINT8, types.INT32, types.INT32, types.UINT8])
    image = fn.decoders.image(jpeg, device="mixed" if cuda else "cpu", output_type=types.RGB,
                              adjust_orientation=False, jpeg_fancy_upsampling=True)
    size = fn.cast(image.shape()[:2], dtype=types.INT32)
    image = fn.slice(image, start=start, shape=side, axes=[0, 1], out_of_bounds_policy="pad")
    anchor, extent = _outside(start, side, size)
    image = fn.erase(image, axes=[0, 1], fill_value=fn.cast(fill, dtype=types.FLOAT), anchor=anchor, shape=extent)
    return fn.resize(image, size=[image_size, image_size], interp_type=types.INTERP_LINEAR, antialias=True)


def _outside(start: Any, side: Any, size: Any) -> tuple[Any, Any]:
    """The four strips of the square that lie outside the photograph: anchors and extents, (y, x) each."""
    zero = types.Constant(np.int32(0))
    top, left = dmath.max(-start[0], zero), dmath.max(-start[1], zero)
    bottom = dmath.max(start[0] + side[0] - size[0], zero)
    right = dmath.max(start[1] + side[1] - size[1], zero)

    def floats(*values: Any) -> Any:
        return fn.cast(fn.stack(*values), dtype=types.FLOAT)

    anchor = floats(zero, zero, zero, zero, side[0] - bottom, zero, zero, side[1] - right)
    return anchor, floats(top, side[1], side[0], left, bottom, side[1], side[0], right)
