"""What a run left behind, as the report reads it: settings, metrics, evaluation, examples, summary."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kaleido_fast.config import Config, load_run_config


@dataclass(frozen=True, slots=True)
class RunFiles:
    """The files of a run folder; what a later stage writes is empty before that stage has run."""

    folder: Path
    config: Config
    config_text: str
    training: list[dict[str, Any]]  # lines of metrics.jsonl, ascending steps
    validation: list[dict[str, Any]]  # the same: {"step", "losses", "accuracy"}
    evaluation: dict[str, Any]  # eval.json
    examples: dict[str, Any]  # examples.json
    summary: dict[str, Any]  # summary.json


def read_run(folder: Path) -> RunFiles:
    """Read a run folder.

    Raises:
        ValueError: the folder is not a run, or one of its files cannot be read.
    """
    config = load_run_config(folder)
    lines = _read_lines(folder / "metrics.jsonl")
    return RunFiles(
        folder=folder,
        config=config,
        config_text=(folder / "config.yaml").read_text(encoding="utf-8"),
        training=[line for line in lines if "losses" in line],
        validation=[{"step": line["step"], **line["validation"]} for line in lines if "validation" in line],
        evaluation=_read_json(folder / "eval.json"),
        examples=_read_json(folder / "examples.json"),
        summary=_read_json(folder / "summary.json"),
    )


def _read_lines(file: Path) -> list[dict[str, Any]]:
    """The JSON lines of a file; a last line that a kill has torn is left out, any other is an error."""
    if not file.exists():
        return []
    texts = file.read_text(encoding="utf-8").splitlines()
    lines = []
    for number, text in enumerate(texts, start=1):
        try:
            lines.append(json.loads(text))
        except ValueError:
            if number < len(texts):
                raise ValueError(f"{file}, line {number}: not JSON; mend or delete the line") from None
    return lines


def _read_json(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        raise ValueError(f"{file}: not JSON; delete it and run the verb that wrote it again") from None
