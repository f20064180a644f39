"""Settings of fine-tuning (SPEC 11)."""

from dataclasses import dataclass
from typing import Annotated, Protocol

from kaleido_fast.model.captioning.settings import CaptionSettings
from kaleido_fast.tasks.settings import EvalConfig


@dataclass(frozen=True, slots=True)
class FinetuneSettings:
    """What a model is fine-tuned for."""

    task: Annotated[str, "downstream task, a row of finetune/table.py; `kaleido-fast finetune CONFIG task=NAME` is short for "
                    "it. Empty where a model is pre-trained"] = ""


class FinetuneConfig(EvalConfig, Protocol):
    """The sections that a fine-tuning reads."""

    @property
    def finetune(self) -> FinetuneSettings: ...

    @property
    def caption(self) -> CaptionSettings: ...
