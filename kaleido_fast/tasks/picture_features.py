"""Clean features of pictures as users have them, kept between calls up to a number of bytes, so that a picture that comes again
is neither decoded nor encoded."""

import contextlib
import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kaleido_fast.data.catalogue.photograph import ORIENTATION
from kaleido_fast.data.catalogue.picture import Picture, picture_square
from kaleido_fast.kernels.geometry import num_positions
from kaleido_fast.kernels.plan import clean_plan
from kaleido_fast.model.kaleido_bert import KaleidoBertModel


class Readable(NamedTuple):
    """Of some pictures those that could be read."""

    places: np.ndarray  # (m,) int64 which of them, ascending
    features: Tensor  # (m, K, F) fp32 on the CPU
    unreadable: dict[int, str]  # the others, and why


class PictureFeatures:
    """Features by a model's patch encoder, the newest kept.

    A file is known again by path, size and time of change; a picture in memory by its pixels and what PIL says of them.

    Args:
        max_side: as `picture_square` takes it.
        kept_mib: of features, at most; 0 keeps none.
    """

    def __init__(self, model: KaleidoBertModel, max_side: int, kept_mib: float) -> None:
        self._model, self._max_side = model, max_side
        self._most_bytes, self._num_bytes = int(kept_mib * 2**20), 0
        self._kept: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._encoder_state, self._lock = self._state(), threading.Lock()
        self.computed = self.found = 0  # pictures so far

    def __getstate__(self) -> dict[str, Any]:
        """For another process: what is kept stays here."""
        return self.__dict__ | {"_kept": OrderedDict(), "_num_bytes": 0, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    @torch.no_grad()
    def of(self, pictures: Sequence[Picture]) -> Readable:
        """Features of those of the pictures that can be read."""
        keys = [_key(picture) if self._most_bytes else None for picture in pictures]
        features = self._known(keys)
        squares, unreadable = {}, {}
        for place, picture in enumerate(pictures):
            if place in features:
                continue
            try:
                squares[place] = picture_square(picture, self._max_side, self._model.image_size)
            except ValueError as error:
                unreadable[place] = str(error)
        if squares:
            features |= dict(zip(squares, self.of_squares(np.stack(list(squares.values()))), strict=True))
            self._keep([(keys[place], features[place]) for place in squares])
        places = sorted(features)
        rows = [features[place] for place in places]
        shape = (0, num_positions(self._model.kaleido.grids), self._model.patch_encoder.num_features)
        return Readable(np.array(places, np.int64), torch.stack(rows) if rows else torch.empty(shape), unreadable)

    @torch.no_grad()
    def of_squares(self, squares: np.ndarray) -> Tensor:
        """(n, K, F) fp32 features of locked squares (n, S, S, 3) uint8; none of them is kept."""
        device = next(self._model.parameters()).device
        plan = clean_plan(torch.zeros(len(squares), 1, dtype=torch.int32, device=device), self._model.kaleido.grids)
        return self._model.features(torch.from_numpy(squares).to(device), plan).float().cpu()

    def _known(self, keys: Sequence[Hashable]) -> dict[int, Tensor]:
        """What is kept, by place; all is forgotten where the patch encoder's weights have moved."""
        with self._lock:
            if self._encoder_state != self._state():
                self._encoder_state, self._num_bytes = self._state(), 0
                self._kept.clear()
            known = {}
            for place, key in enumerate(keys):
                if key in self._kept:
                    self._kept.move_to_end(key)
                    known[place] = self._kept[key]
            self.found += len(known)
            return known

    def _keep(self, features: Sequence[tuple[Hashable, Tensor]]) -> None:
        with self._lock:
            self.computed += len(features)
            for key, one in features:
                if key is None or key in self._kept:
                    continue
                self._kept[key] = one.clone()  # a row of a batch would keep the batch
                self._num_bytes += one.nbytes
            while self._num_bytes > self._most_bytes:
                _, oldest = self._kept.popitem(last=False)
                self._num_bytes -= oldest.nbytes

    def _state(self) -> list[tuple[int, int, int]]:
        """What changes when a weight of the patch encoder does; one made in inference mode counts no changes."""
        encoder = self._model.patch_encoder
        return [(id(tensor), tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version)
                for tensor in (*encoder.parameters(), *encoder.buffers())]


def listed_pictures(images: Picture | Sequence[Picture]) -> list[Picture]:
    """The pictures as a list; one picture alone, a path or an array (H, W, 3) or (H, W), becomes a list of one.

    Raises:
        ValueError: no picture and no list.
    """
    if isinstance(images, str | Path | Image.Image) or (isinstance(images, np.ndarray) and images.ndim < 4):
        return [images]
    if isinstance(images, bytes) or not isinstance(images, Iterable):
        raise ValueError("images: expected a path, a PIL image, a uint8 array or a list of them, found "
                         f"{type(images).__name__}")
    return list(images)


def _key(picture: Picture) -> Hashable:
    """What a picture is known by; None where it cannot be read, or is no picture: `picture_square` says so."""
    with contextlib.suppress(OSError, ValueError):
        if isinstance(picture, str | Path):
            file = os.stat(picture)
            return os.path.abspath(picture), file.st_size, file.st_mtime_ns
        if isinstance(picture, np.ndarray):
            return "array", picture.shape, str(picture.dtype), hashlib.blake2b(picture.tobytes()).digest()
        if isinstance(picture, Image.Image):
            pixels, palette = hashlib.blake2b(picture.tobytes()).digest(), picture.getpalette() or ()
            return (picture.format, picture.mode, picture.size, pixels, tuple(palette), str(picture.info.get("transparency")),
                    picture.getexif().get(ORIENTATION, 1))
    return None
