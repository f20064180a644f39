"""What a stranger's request may hold, and a picture that was sent."""

import io
from dataclasses import dataclass

from PIL import Image

from kaleido_fast.data.catalogue.photograph import FORMATS, UnusablePhotograph, store_photograph
from kaleido_fast.data.catalogue.product import PhotographBytes

MIB = 2**20
FORM_BYTES = 64 * 1024  # of a form beside its picture


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one request, and of those at once."""

    upload_mib: float = 10
    pixels: int = 40_000_000  # of a picture, as its header claims
    query_letters: int = 1000
    most_results: int = 100
    running: int = 2  # searches at once
    waiting: int = 200  # searches that wait for one; more are sent away

    @property
    def body_bytes(self) -> int:
        return int(self.upload_mib * MIB) + FORM_BYTES

    @property
    def too_large(self) -> str:
        return f"a photograph of more than {self.upload_mib:g} MiB; send a smaller one"

    def check_text(self, text: str) -> str:
        """The text, stripped. Raises ValueError: it is too long."""
        if len(text) > self.query_letters:
            raise ValueError(f"a query of {len(text):,} letters; at most {self.query_letters:,} are read: use fewer words")
        return text.strip()

    def picture(self, data: bytes, max_side: int) -> Image.Image:
        """What `prepare` would store of a picture that was sent.

        Raises:
            ValueError: too large, or no picture that can be read.
        """
        if len(data) > self.upload_mib * MIB:
            raise ValueError(self.too_large)
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as header:
                size = header.size
        except Exception:  # Pillow on a stranger's bytes; what is wrong says store_photograph
            size = (0, 0)
        if size[0] * size[1] > self.pixels:
            raise ValueError(f"a photograph of {size[0]:,} x {size[1]:,} pixels; at most {self.pixels:,} pixels are read: "
                             "send a smaller one")
        try:
            stored = store_photograph(PhotographBytes("upload", data), max_side)
        except UnusablePhotograph as error:
            raise ValueError(f"the photograph cannot be used: {error}") from None
        return Image.open(io.BytesIO(stored.data))
