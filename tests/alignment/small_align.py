"""`align` with a captioner of two steps, which takes seconds."""

from pathlib import Path

from kaleido_fast.alignment.align import align
from kaleido_fast.config import Config, load_config
from tests.places import DEMO
from tests.small import PATCHES

NAME = "aag-generated"
SMALL_CAPTIONER = (*PATCHES, "align.minutes=0", "align.micro_batch=16", "align.channels=8", "align.hidden=8",
                   "align.embedding=8", "align.attention=4")


def config_of(shards: Path, out: Path, *more: str) -> Config:
    return load_config(DEMO, [*SMALL_CAPTIONER, f"data.shards={shards}", f"run.out={out}", "align.steps=2", "align.beam=2",
                              "align.smoothing=0.0", "align.region_share=0.85", *more])


def again(shards: Path, run: Path, *more: str) -> int:
    """Forced alignments under the name `aag-generated`; the exit code."""
    return align(config_of(shards, run, "align.mode=forced", f"align.name={NAME}", *more))
