"""All settings as a table, from what stands at their fields: `kaleido-fast settings`, and docs/settings.md."""

import difflib
import typing
from collections.abc import Callable, Sequence
from typing import Any

from kaleido_fast.config import Config
from kaleido_fast.model.patch_encoders.build import PATCH_ENCODERS
from kaleido_fast.model.task_table import TASKS, losses
from kaleido_fast.options import RESUME, Option
from kaleido_fast.settings import ALIGNMENT, CAPTIONER, Between, Decides, MultipleOf, OnDisk, Setting, Unit, settings_of

# Names that a table elsewhere allows.
CHOICES: dict[str, Callable[[], Sequence[str]]] = {
    "model.patch_encoder": lambda: sorted(PATCH_ENCODERS), "kaleido.tasks": lambda: list(TASKS),
    "train.task_weights": losses, "train.losses_on_mismatched": losses,
}
KINDS: dict[Any, str] = {
    bool: "true or false", int: "whole number", float: "number", str: "text", dict[str, float]: "numbers by name"}
PLURALS = {int: "whole numbers", float: "numbers", str: "names"}
MADE_BY_ALIGN = {CAPTIONER: "the captioner", ALIGNMENT: "the alignments"}
SHOWN = 8  # of a list's values
COMMAND = f"kaleido-fast settings {Option('markdown').flag} > docs/settings.md"
PAGE = f"""# Settings

<!-- Made by `{COMMAND}`; the text stands at the fields, in the settings.py of each component. -->

Every setting of a config, as `kaleido-fast settings` prints them; `kaleido-fast settings train` lists one section. A config
is a YAML file of these sections, and `key=value` behind it lays one setting over it, such as `train.learning_rate=1e-4`; what
is not named has the default. All of it is checked when a config is read. A run's `config.yaml` holds all settings that it was
made with.

The last column says whether a run may be resumed (`{RESUME.flag}`) with another value. In the section `align` it says what a
setting decides: `align` does not go on with a captioner or alignments that it began with another value.
"""


def find_settings(prefix: str) -> list[Setting]:
    """The settings whose key begins with `prefix`; all of them where it is empty.

    Raises:
        ValueError: there is none; names the nearest.
    """
    everything = settings_of(Config)
    selected = [setting for setting in everything if setting.key.startswith(prefix)]
    if not selected:
        sections = list(typing.get_type_hints(Config))
        near = difflib.get_close_matches(prefix, [*sections, *(setting.key for setting in everything)], n=2)
        advice = f"did you mean {' or '.join(map(repr, near))}?" if near else f"the sections are {', '.join(sections)}"
        raise ValueError(f"no setting begins with '{prefix}'; {advice}")
    return selected


def as_table(settings: Sequence[Setting]) -> str:
    """Two lines a setting: key, default, type, unit, whether it may change on resume; then what it is and what is allowed."""
    rows, sentences = [("key", "default", "type", "unit", "on resume")], [""]
    for setting in settings:
        default, kind, allowed, unit, resume = _cells(setting)
        rows.append((setting.key, default, kind, unit, resume))
        sentences.append(f"\n    {setting.sentence}{f' [{allowed}]' if allowed else ''}")
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(line + sentence for line, sentence in zip(lines, sentences, strict=True))


def as_markdown() -> str:
    """docs/settings.md."""
    parts = [PAGE]
    for name, section in typing.get_type_hints(Config).items():
        parts.append(f"\n## {name}\n\n{_first_line(section)}\n\n"
                     "| key | default | type | allowed | unit | what it is | on resume |\n"
                     "| --- | --- | --- | --- | --- | --- | --- |\n")
        for setting in find_settings(f"{name}."):
            default, kind, allowed, unit, resume = _cells(setting)
            parts.append(f"| `{setting.key}` | {f'`{default}`' if default else ''} | {kind} | {allowed} | {unit} | "
                         f"{setting.sentence} | {resume} |\n")
    return "".join(parts)


def _cells(setting: Setting) -> tuple[str, str, str, str, str]:
    """Default, type, what is allowed, unit, and whether it may change on resume."""
    unit = setting.mark(Unit)
    return (_value(setting.default), _kind(setting), _allowed(setting), unit.name if unit else "",
            _on_resume(setting))


def _on_resume(setting: Setting) -> str:
    """Whether a run may be resumed with another value; of `align`, which no run reads, what the setting decides there."""
    if setting.key.startswith("align."):
        decides = setting.mark(Decides)
        return f"decides {' and '.join(MADE_BY_ALIGN[made] for made in decides.made)}" if decides else ""
    return "may change" if setting.may_change else ""


def _kind(setting: Setting) -> str:
    if setting.mark(OnDisk):
        return "path"
    if typing.get_origin(setting.kind) is typing.Literal:
        return KINDS[type(typing.get_args(setting.kind)[0])]
    if typing.get_origin(setting.kind) is tuple:
        first, *others = typing.get_args(setting.kind)
        return f"list of {PLURALS[first]}" if others == [...] else f"{1 + len(others)} {PLURALS[first]}"
    return KINDS[setting.kind]


def _allowed(setting: Setting) -> str:
    if typing.get_origin(setting.kind) is typing.Literal:
        return ", ".join(map(str, typing.get_args(setting.kind)))
    allowed = [", ".join(CHOICES.get(setting.key, list)())]
    if setting.mark(Between):
        allowed.append(str(setting.mark(Between)))
    if setting.mark(MultipleOf):
        allowed.append(f"a multiple of {setting.mark(MultipleOf).number}")
    return "; ".join(part for part in allowed if part)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        shown = ", ".join(map(_value, value[:SHOWN]))
        return f"[{shown}, … {len(value)} in all]" if len(value) > SHOWN else f"[{shown}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _first_line(section: Any) -> str:
    return str(section.__doc__).split("\n")[0]
