"""Options that a user gives in Python as fields and on the command line as flags: how each is declared, how messages name it.

The library knows fields alone; the command line makes flags of them, and of the `Option`s in a message.
"""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Flag:
    """Beside a field, in `Annotated`: the field is a flag of the command line too.

    Args:
        sentence: what it is for.
        metavar: what stands for its value in the help.
    """

    sentence: str
    metavar: str | None = None


@dataclass(frozen=True, slots=True)
class Option:
    """An option, or a call, that a message names for two readers.

    Args:
        name: for Python: its field or argument, and what is to be given where that is meant.
        spelled: for the command line; the name as a flag without it.
    """

    name: str
    spelled: str = ""

    @property
    def flag(self) -> str:
        return self.spelled or f"--{self.name.replace('_', '-')}"


# What the command line does not spell as Python does.
RESUME = Option("resume=True", "--resume auto")
GO_ON = Option("pretrain(config, resume=True)", "`kaleido-fast pretrain CONFIG.yaml ... --resume auto`")
PREPARE_FEATURE_FILES = Option("`prepare_kaleido_tsv`", "`kaleido-fast prepare --from kaleido-tsv`")
TEXT_FIELDS = Option("field={...}", "--field")
ADD = Option("add=True", "--add")
INDEX = Option("`build_index`", "`kaleido-fast index`")
INDEX_MORE = Option("`build_index(add=True)`", "`kaleido-fast index ... --add`")
INDEX_APPROXIMATE = Option("`make_approximate`", "`kaleido-fast index --out INDEX --approximate`")
AGAINST_PHOTOGRAPHS = Option("against='photographs'", "--against photographs")
MOVED_SHARDS = Option("shards=DIR", "data.shards=DIR")


class OptionError(ValueError):
    """A wrong input, and what to do about it: texts and `Option`s, one behind the other."""

    def __init__(self, *parts: str | Option) -> None:
        super().__init__(*parts)

    def __str__(self) -> str:
        """For Python: options by their names."""
        return "".join(part.name if isinstance(part, Option) else part for part in self.args)

    def with_flags(self) -> str:
        """For the command line: options by their flags."""
        return "".join(part.flag if isinstance(part, Option) else part for part in self.args)


def message_parts(error: Exception) -> tuple[str | Option, ...]:
    """What another OptionError is made of to say the same."""
    return error.args if isinstance(error, OptionError) else (str(error),)


def message_with_flags(error: Exception) -> str:
    """An error's text as the command line shows it."""
    return error.with_flags() if isinstance(error, OptionError) else str(error)


def typed_path(text: str | Path) -> Path:
    """A path as a user gives it; `~` is the user's home where the shell has left it."""
    return Path(os.path.expanduser(text))
