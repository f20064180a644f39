"""What the fields of a text are called, and how they are joined. No package is imported: the command line loads this."""

import re
from collections.abc import Sequence

from kaleido_fast.options import Option, OptionError

SEPARATOR = ". "
MOST_FIELDS = 16
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def joined(texts: Sequence[str]) -> str:
    """The text of fields, or of columns."""
    return SEPARATOR.join(text for text in texts if text)


def check_fields(fields: Sequence[str]) -> None:
    """Refuse (ValueError) fields that are not NAME=COLUMN, of different names."""
    names = [field.partition("=")[0] for field in fields]
    for field, name in zip(fields, names, strict=True):
        if not NAME.fullmatch(name) or not field.partition("=")[2]:
            raise OptionError(Option("field"), f" {field}: expected NAME=COLUMN such as title=productDisplayName, a name of "
                              "letters, digits and underscores")
        if names.count(name) > 1:
            raise OptionError(Option("field"), f": two fields are called {name}; give each a name of its own")
    if len(fields) > MOST_FIELDS:
        raise OptionError(Option("field"), f": {len(fields)} fields, a text has at most {MOST_FIELDS}")
