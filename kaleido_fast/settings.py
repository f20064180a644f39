"""What a setting says of itself, at its field, and what can be read of all settings from there.

    decode_threads: Annotated[int, Between(1, 256), Free(), "threads that decode photographs"] = 2

A config is a dataclass of sections, a section a dataclass of such fields. Neither torch nor pydantic is needed here: the
model's own settings must be readable on a machine that has torch, Triton and NumPy alone.
"""

import dataclasses
import os
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

MOST = 2**40  # of a count that has no natural limit
EXACT = 10**6  # numbers below are written as they are
FEATURES, CAPTIONER, ALIGNMENT = "features", "captioner", "alignment"  # what is made once and kept, see `Decides`


@dataclass(frozen=True, slots=True)
class Between:
    """Every number of the setting lies between these two, either of which is allowed."""

    least: float
    most: float

    def __str__(self) -> str:
        return f"at least {_number(self.least)}" if self.most == MOST else f"{_number(self.least)}..{_number(self.most)}"


def AtLeast(least: int) -> Between:
    """A count that has no natural limit."""
    return Between(least, MOST)


@dataclass(frozen=True, slots=True)
class MultipleOf:
    """The setting is a positive multiple of a number."""

    number: int


@dataclass(frozen=True, slots=True)
class Unit:
    """What the setting counts or measures, such as pixels."""

    name: str


@dataclass(frozen=True, slots=True)
class Free:
    """The setting decides nothing of what is trained: a run may be resumed with another value, and compared with others."""


@dataclass(frozen=True, slots=True)
class MayChange:
    """A run may be resumed with another value, though it takes part in what is trained."""


@dataclass(frozen=True, slots=True)
class OnDisk:
    """The setting is a file or a folder, or empty; `but` is a word that it may be instead."""

    but: str = ""

    def absolute(self, given: str) -> str:
        """The path that was meant, from the root of the file system on; `~` is the user's home."""
        return given if given in ("", self.but) else absolute(given)


@dataclass(frozen=True, slots=True)
class Decides:
    """The setting decides what becomes of these (FEATURES, CAPTIONER, ALIGNMENT): it is kept with them and compared."""

    made: tuple[str, ...]

    def __init__(self, *made: str) -> None:
        object.__setattr__(self, "made", made)


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of a config."""

    key: str  # section.name
    kind: Any  # its type
    default: Any
    sentence: str
    marks: tuple[Any, ...]

    def mark(self, kind: type) -> Any:
        """The mark of this kind that stands at the field, or None."""
        return next((mark for mark in self.marks if isinstance(mark, kind)), None)

    @property
    def may_change(self) -> bool:
        """Whether a run may be resumed with another value."""
        return self.mark(Free) is not None or self.mark(MayChange) is not None

    def check(self, value: Any) -> None:
        """Refuse numbers that cannot be (ValueError names the key, what was found and what is allowed)."""
        bounds, multiple = self.mark(Between), self.mark(MultipleOf)
        numbers = list(_numbers(value))
        shown = list(value) if isinstance(value, tuple) else value
        if multiple and not all(number > 0 and number % multiple.number == 0 for number in numbers):
            raise ValueError(f"{self.key}={shown} must be a positive multiple of {multiple.number}")
        if bounds is None or all(bounds.least <= number <= bounds.most for number in numbers):  # a NaN lies nowhere
            return
        if bounds.most == MOST:
            too_large = any(number > MOST for number in numbers)
            raise ValueError(f"{self.key}={shown} must be {f'at most {_number(MOST)}' if too_large else bounds}")
        raise ValueError(f"{self.key}={shown} must lie in {bounds}")


@cache
def settings_of(config: type) -> tuple[Setting, ...]:
    """Every setting of a config's class, in the order of its sections and fields; a section's marks are its fields' too."""
    every_setting: list[Setting] = []
    for name, hint in typing.get_type_hints(config, include_extras=True).items():
        section, marks = _parted(hint)
        every_setting += _section_settings(name, section, marks)
    return tuple(every_setting)


def with_absolute_paths(config: Any) -> Any:
    """The same config; its paths mean the same from any folder."""
    sections = {section.name: getattr(config, section.name) for section in dataclasses.fields(config)}
    for setting in settings_of(config.__class__):
        place, (name, _, field) = setting.mark(OnDisk), setting.key.partition(".")
        if place is not None:
            given = getattr(sections[name], field)
            sections[name] = dataclasses.replace(sections[name], **{field: place.absolute(given)})
    return dataclasses.replace(config, **sections)


def absolute(path: str) -> str:
    """A path from the root of the file system on; `~` is the user's home."""
    return os.path.abspath(os.path.expanduser(path))


def same_place(earlier: str, now: str) -> bool:
    """Whether a path that was kept is the absolute path `now`.

    One that was kept as it was typed, from a folder that is no longer known, is taken to be where its names are; a name alone
    says too little for that and counts from the current folder.
    """
    if earlier == now or not earlier or not os.path.isabs(now):  # nothing, or the word that a setting may be instead
        return earlier == now
    if absolute(earlier) == now or os.path.isabs(earlier):
        return absolute(earlier) == now
    names = [name for name in Path(earlier).parts if name not in ("~", "..", ".")]
    return os.sep in earlier and bool(names) and list(Path(now).parts[-len(names):]) == names


def values_of(config: Any) -> dict[str, Any]:
    """A config's values by key, as plain values: lists for tuples."""
    return {f"{section.name}.{field.name}": plain(getattr(getattr(config, section.name), field.name))
            for section in dataclasses.fields(config) for field in dataclasses.fields(getattr(config, section.name))}


def values_deciding(config: Any, made: str) -> dict[str, Any]:
    """The values that decide what `made` (FEATURES, CAPTIONER, ALIGNMENT) becomes, by key."""
    values = values_of(config)
    return {setting.key: values[setting.key] for setting in settings_of(config.__class__)
            if (mark := setting.mark(Decides)) and made in mark.made}


def check_sections(**sections: Any) -> None:
    """Hold sections, by name, against what stands at their fields, then against their own `check()`.

    Raises:
        ValueError: names the key, what was found and what is allowed.
    """
    for name, section in sections.items():
        for setting in _section_settings(name, section.__class__):
            setting.check(getattr(section, setting.key.rpartition(".")[2]))
    for section in sections.values():
        check = getattr(section, "check", None)
        if check is not None:
            check()


def as_yaml(config: Any) -> str:
    """The resolved settings as YAML; `config.load_config` of it gives the same again."""
    import yaml  # a machine that only times steps has none

    return yaml.safe_dump(plain(dataclasses.asdict(config)), sort_keys=False)


@cache
def _section_settings(name: str, section: type, marks: tuple[Any, ...] = ()) -> tuple[Setting, ...]:
    hints, section_settings = typing.get_type_hints(section, include_extras=True), []
    for field in dataclasses.fields(section):
        kind, own_marks = _parted(hints[field.name])
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        sentence = next((mark for mark in own_marks if isinstance(mark, str)), "")
        section_settings.append(Setting(f"{name}.{field.name}", kind, default, sentence, (*own_marks, *marks)))
    return tuple(section_settings)


def _parted(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """A type and what is said beside it."""
    marks = getattr(hint, "__metadata__", ())
    return (hint.__origin__ if marks else hint), marks


def _numbers(value: Any) -> Iterator[float]:
    yield from value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else (value,)


def _number(value: float) -> str:
    return f"{value:g}" if abs(value) < EXACT else f"{value:,}"


def plain(value: Any) -> Any:
    """The same without tuples, as YAML and JSON have it."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | types.GeneratorType):
        return [plain(item) for item in value]
    return value
