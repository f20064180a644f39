"""How the photographs and texts that a model was trained on were made; exported with it as preprocessing.json."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from kaleido_fast.files import read_json

PREPROCESSING = "preprocessing.json"
PLAIN_BACKGROUND = "plain-background"  # the foreground finder of locking.py


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What a picture and a text go through besides the resize, whose size is the model's."""

    max_tokens: int  # T, with [CLS] and [SEP]
    max_side: int  # pixels; larger photographs are shrunk before they are locked
    foreground: str = PLAIN_BACKGROUND

    def write(self, folder: Path) -> None:
        (folder / PREPROCESSING).write_text(json.dumps(dataclasses.asdict(self), indent=1), encoding="utf-8")

    @staticmethod
    def read(folder: Path) -> "Preprocessing":
        """Read a folder's preprocessing.json.

        Raises:
            ValueError: it cannot be read, or names a way of finding the foreground that is not known.
        """
        file, advice = folder / PREPROCESSING, "export the model again"
        try:
            values = Preprocessing(**read_json(file, advice))
        except TypeError as error:
            raise ValueError(f"{file}: other keys than expected: {error}; {advice}") from None
        if values.foreground != PLAIN_BACKGROUND:
            raise ValueError(f"{file}: foreground '{values.foreground}', this version knows '{PLAIN_BACKGROUND}' alone")
        return values
