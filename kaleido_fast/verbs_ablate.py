"""The verb `ablate`: rows of a table as runs in turn; ablations.json, .md and .html in the folder that is given."""

import argparse
import os
from pathlib import Path

from kaleido_fast.options import typed_path

PAPER = ("model.itc_dim=0", "train.task_weights.itc=0", "data.itm_negatives=random")


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the verb to the command line."""
    verb = verbs.add_parser("ablate", help="the paper's Table 4: runs in turn, one table with spread and differences")
    verb.add_argument("rows", type=typed_path, metavar="ROWS", help="folder of rows, such as configs/ablations")
    verb.add_argument("overrides", nargs="*", metavar="key=value", help="data.shards=FOLDER, any setting, for all rows")
    verb.add_argument("--out", type=typed_path, required=True, help="folder of the runs and the table; goes on where it was")
    verb.add_argument("--base", type=typed_path, help="config that rows are laid over; demo.yaml beside ROWS without it")
    verb.add_argument("--seeds", nargs="+", default=["0", "1", "2"], metavar="SEED")
    length = verb.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=float, help="of training, each run")
    length.add_argument("--steps", type=int, help="of training, each run: the same on every machine")
    verb.add_argument("--only", nargs="+", default=[], metavar="ROW", help="rows by name; all without it")
    verb.add_argument("--at-once", type=int, default=1, metavar="N", help="runs at a time, which share the cores")
    verb.add_argument("--paper", action="store_true", help="without contrast, as the paper's")
    verb.set_defaults(run=ablate)


def ablate(options: argparse.Namespace) -> int:
    """Run what is not done, write the table; exit code 1 where a run failed."""
    import json

    from kaleido_fast.bench.ablation.rows import NEEDS, read_rows
    from kaleido_fast.bench.ablation.runs import is_evaluated, run_all, run_results
    from kaleido_fast.bench.ablation.table import ablation_figures, as_html, as_markdown, require_seeds
    from kaleido_fast.config import load_config
    from kaleido_fast.files import replace_text
    from kaleido_fast.settings import as_yaml

    seeds = require_seeds(options.seeds)
    if options.at_once < 1:
        raise ValueError(f"--at-once={options.at_once} must be at least 1")
    rows = read_rows(options.rows, options.only)
    base = options.base or options.rows.parent / "demo.yaml"
    length = [f"train.{name}={getattr(options, name) or 0}" for name in ("minutes", "steps")] + ["train.epochs=0"]
    missing: dict[str, str] = {}
    folders: dict[tuple[str, int], Path] = {}  # by row and seed
    configs: dict[Path, str] = {}
    of_settings: dict[str, Path] = {}  # rows of the same settings share their runs
    for seed in seeds:
        for row in rows:
            settings = [*options.overrides, *row.settings, *(PAPER if options.paper else ()), *length, f"train.seed={seed}"]
            config = load_config(base, [*settings, f"run.out={options.out}"])  # one for all rows, so that equal settings show
            if row.needs == "unlocked" or (row.needs == "alignment" and config.data.alignment == "none"):
                missing[row.name] = NEEDS[row.needs]
                continue
            folder = of_settings.setdefault(as_yaml(config), options.out / "runs" / f"{row.name}-seed{seed}")
            folders[row.name, seed] = folder
            configs[folder] = as_yaml(load_config(base, [*settings, f"run.out={folder}"]))
    (options.out / "runs").mkdir(parents=True, exist_ok=True)
    for folder, text in configs.items():
        file = folder.with_suffix(".yaml")
        if file.is_file() and file.read_text("utf-8") != text:
            raise ValueError(f"{file}: was made with other settings; give another --out")
        replace_text(file, text)
    failed = run_all([(folder, folder.with_suffix(".yaml")) for folder in configs], options.at_once)
    results: dict[str, dict[int, dict]] = {}
    for (name, seed), folder in folders.items():
        if is_evaluated(folder):
            results.setdefault(name, {})[seed] = run_results(folder)
        elif folder in failed:
            missing[name] = failed[folder]
    figures = ablation_figures(rows, results, missing, seeds)
    figures |= {"base": os.path.basename(base), "minutes": options.minutes, "steps": options.steps, "paper": options.paper}
    for suffix, text in (("json", json.dumps(figures, indent=1) + "\n"), ("md", as_markdown(figures)),
                         ("html", as_html(figures))):
        replace_text(options.out / f"ablations.{suffix}", text)
    print(as_markdown(figures), end="")
    return 1 if failed else 0
