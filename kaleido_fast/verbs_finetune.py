"""The verbs `finetune`, and `caption`, whose file of captions a second call goes on with: their arguments, and what they do.

Imports stand inside, so that a verb loads what it needs and nothing else.
"""

import argparse
import io
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kaleido_fast.options import typed_path

if TYPE_CHECKING:
    from kaleido_fast.api import KaleidoBert


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the verbs to the command line."""
    verb = verbs.add_parser("finetune", help="train a pre-trained model for a task: task=category init.weights=RUN")
    verb.add_argument("config", metavar="CONFIG.yaml")
    verb.add_argument("overrides", nargs="*", metavar="key=value", help="task=NAME, init.weights=FOLDER, any setting")
    verb.add_argument("--resume", choices=["auto"], help="auto: go on with the run in run.out if there is one")
    verb.set_defaults(run=finetune)
    _add_caption(verbs)


def _add_caption(verbs: argparse._SubParsersAction) -> None:
    verb = verbs.add_parser("caption", help="write captions of photographs, by a fine-tuned captioner")
    verb.add_argument("model", type=typed_path, metavar="MODEL", help="an exported folder or a run of task=captioning")
    source = verb.add_mutually_exclusive_group(required=True)
    source.add_argument("--images", type=typed_path, metavar="DIR", help="a folder of photographs, and the folders in it")
    source.add_argument("--shards", type=typed_path, metavar="DIR", help="what `prepare` wrote")
    verb.add_argument("--split", default="test", help="of the shards; %(default)s without it")
    verb.add_argument("--out", type=typed_path, required=True, metavar="FILE.jsonl",
                      help="one line a photograph; where it has some, those are kept and the others written behind them")
    verb.add_argument("--batch", type=int, default=64, metavar="N", help="photographs at once; %(default)s without it")
    verb.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    verb.set_defaults(run=caption)


def finetune(options: argparse.Namespace) -> int:
    """Fine-tune; the exit code."""
    from kaleido_fast.config import check_config, load_config
    from kaleido_fast.finetune.finetune import finetune, prepare_config
    from kaleido_fast.training.workers.failure import one_worker_speaks

    resume = options.resume == "auto"
    with one_worker_speaks():
        config, changed = prepare_config(load_config(options.config, options.overrides), resume)
        check_config(config)
    if changed and os.environ.get("RANK", "0") == "0":
        print(f"of the model it starts from: {' '.join(changed)}")
    return finetune(config, resume)


class Photograph(NamedTuple):
    """One to be captioned."""

    id: str
    picture: Any  # a path, or a PIL image


def caption(options: argparse.Namespace) -> int:
    from kaleido_fast.api import KaleidoBert
    from kaleido_fast.progress_bar import ProgressBar

    model = KaleidoBert.from_pretrained(options.model, device=options.device, batch_size=options.batch, kept_features_mib=0)
    model.caption([])  # refuses what writes none
    photographs = list(_of_folder(options.images) if options.images else _of_shards(options.shards, options.split))
    there = _lines_there(options.out)
    left = [one for one in photographs if one.id not in there]
    started, written, skipped = time.perf_counter(), 0, 0
    with options.out.open("a", encoding="utf-8") as out, ProgressBar(len(left), "caption", "photo", shown=True) as bar:
        for start in range(0, len(left), options.batch):
            part = left[start : start + options.batch]
            written_here, skipped_here = _write(model, part, out)
            written, skipped = written + written_here, skipped + skipped_here
            bar.update(len(part))
    seconds = time.perf_counter() - started
    print(f"{options.out}: {written:,} captions in {seconds:.0f} s ({written / max(seconds, 1e-9):.1f} photographs a second); "
          f"{len(photographs) - len(left):,} were there, {skipped:,} photographs cannot be read")
    return 0


def _write(model: "KaleidoBert", part: list[Photograph], out: io.TextIOBase) -> tuple[int, int]:
    """How many captions were written, and how many photographs left out, each named."""
    from kaleido_fast.progress_bar import write_line

    answer = model.caption([_opened(one.picture) for one in part], errors="skip")
    for number, why in sorted(answer.skipped.items()):
        write_line(f"{part[number].id}: left out: {why}")
    for number, text in zip(answer.kept, answer.captions, strict=True):
        out.write(json.dumps({"id": part[number].id, "caption": text}, ensure_ascii=False) + "\n")
    out.flush()
    return len(answer.captions), len(answer.skipped)


def _opened(picture: Any) -> Any:
    return picture() if callable(picture) else picture


def _of_folder(images: Path) -> Iterator[Photograph]:
    from kaleido_fast.data.catalogue.photograph_files import photograph_names

    if not images.is_dir():
        raise ValueError(f"{images}: no such folder of photographs; give --images DIR")
    names = list(photograph_names(images))
    if not names:
        raise ValueError(f"{images}: no photographs there; give a folder of .jpg, .png and the like")
    yield from (Photograph(name, images / name) for name in names)


def _of_shards(shards: Path, name: str) -> Iterator[Photograph]:
    """A product's photographs by its id, the second and later ones with their numbers."""
    from PIL import Image

    from kaleido_fast.data.shards.split import Split

    split = Split.open(shards, name)
    split.manifest.require_photographs(split.folder, "caption")
    for rank in range(split.num_products):
        row = split.products[rank]
        for number in range(int(row["num_samples"])):
            sample = int(row["first_sample"]) + number
            yield Photograph(row["id"].decode() + (f"_{number}" if number else ""),
                             lambda sample=sample: Image.open(io.BytesIO(split.read(sample))))


def _lines_there(file: Path) -> set[str]:
    """Ids of the lines that `file` has; a last one that a kill cut short is taken off."""
    if not file.exists():
        return set()
    text = file.read_bytes()
    if (whole := text.rfind(b"\n") + 1) < len(text):
        with file.open("r+b") as stream:
            stream.truncate(whole)
    try:
        return {json.loads(line)["id"] for line in text[:whole].splitlines()}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: not captions of an earlier call ({error}); give another --out") from None
