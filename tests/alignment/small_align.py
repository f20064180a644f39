"""`align` with a captioner of two steps, which takes seconds."""

from pathlib import Path

from kaleido_fast.alignment.align import align
from kaleido_fast.config import Config, load_config

REPO = Path(__file__).parents[2]
NAME = "aag-generated"


def config_of(shards: Path, out: Path, *more: str) -> Config:
    return load_config(REPO / "configs" / "demo.yaml", [
        f"data.shards={shards}", f"run.out={out}", "data.image_size=60", "kaleido.patch_size=12", "align.steps=2",
        "align.minutes=0", "align.micro_batch=16", "align.channels=8", "align.hidden=8", "align.embedding=8",
        "align.attention=4", "align.beam=2", "align.smoothing=0.0", "align.region_share=0.85", *more])


def again(shards: Path, run: Path, *more: str) -> int:
    """Forced alignments under the name `aag-generated`; the exit code."""
    return align(config_of(shards, run, "align.mode=forced", f"align.name={NAME}", *more))
