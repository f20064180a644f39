"""What `data check` finds, and the arrays it looks into."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kaleido_fast.data.shards.split import product_dtype_like


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong; `what` says what was found and what was expected."""

    file: str
    what: str
    sample: int | None = None  # number in its split
    product: str = ""

    def describe(self) -> str:
        """A line."""
        place = [self.file]
        if self.sample is not None:
            place.append(f"sample {self.sample}")
        if self.product:
            place.append(f"product {self.product}")
        return f"{', '.join(place)}: {self.what}"


def open_array(
    folder: Path, file: str, dtype: np.dtype | None, shape: tuple[int, ...], findings: list[Finding]
) -> np.ndarray | None:
    """A file mapped into memory; None and a finding where it is not what it should be (`dtype` None: a product table)."""
    try:
        array = np.load(folder / file, mmap_mode="r")
    except FileNotFoundError:
        return None  # reported once, with all other missing files
    except (OSError, ValueError, EOFError) as error:
        findings.append(Finding(file, f"cannot be read: {error}"))
        return None
    dtype = product_dtype_like(array) if dtype is None else dtype
    if array.dtype != dtype or array.shape != shape:
        kind = "rows of another kind" if array.dtype != dtype else f"shape {array.shape}"
        findings.append(Finding(file, f"{kind}, expected {shape} by the manifest"))
        return None
    return array


def readable_id(product: bytes) -> str:
    """A product's id as a finding names it; bytes that are no text, escaped."""
    return product.decode("utf-8", "backslashreplace")
