"""data check: the fields of a text: what the record says of them, and where they lie among the tokens."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from kaleido_fast.data.check.row import Problem
from kaleido_fast.data.shards.field_text import joined
from kaleido_fast.data.shards.fields import field_ranges
from kaleido_fast.data.shards.tokenizer import Tokenizer


def field_problems(
    names: Sequence[str], tokenizer: Tokenizer | None, ranges: np.ndarray, num_tokens: int, record: dict[str, Any]
) -> Iterator[Problem]:
    """What is wrong with the fields of one row.

    Args:
        names: of the fields, as the manifest has them.
        tokenizer: None where the vocabulary is not the manifest's: nothing is compared with the text then.
        ranges: (fields, 2) as the shard has them.
        num_tokens: of the row.
    """
    fields = record.get("fields")
    if not isinstance(fields, dict) or set(fields) != set(names):
        yield ".tar", f"fields {fields!r:.120}, expected {', '.join(names)}, each with its text"
        return
    texts = [str(fields[name]) for name in names]
    text = str(record["text"])
    if joined(texts) != text:
        yield ".tar", f"the fields make '{joined(texts)[:80]}', the text is '{text[:80]}'"
    elif tokenizer is not None:
        expected = field_ranges(texts, tokenizer.encode_with_offsets(text)[1], num_tokens)
        if (ranges != expected).any():
            yield ".fields.npy", f"tokens {ranges.tolist()}, the fields have {expected.tolist()}"
