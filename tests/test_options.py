"""Messages that name options: by fields in Python, by flags on the command line."""

import pickle

import pytest

from kaleido_fast.cli import _parse
from kaleido_fast.options import (
    GO_ON, MOVED_SHARDS, PREPARE_FEATURE_FILES, RESUME, Option, OptionError, message_parts, message_with_flags,
)


def test_a_message_names_options_as_its_reader_knows_them() -> None:
    error = OptionError(Option("max_side"), "=0 of {a} %s must lie in 16..65500; give another ", Option("out"))
    assert str(error) == "max_side=0 of {a} %s must lie in 16..65500; give another out"
    assert message_with_flags(error) == "--max-side=0 of {a} %s must lie in 16..65500; give another --out"
    assert message_with_flags(ValueError("as it is")) == "as it is"


@pytest.mark.parametrize(("option", "before", "behind", "meaning"), [
    (RESUME, "pretrain c.yaml", "", {"verb": "pretrain", "resume": "auto"}),
    (GO_ON, "", "", {"verb": "pretrain", "resume": "auto"}),
    (PREPARE_FEATURE_FILES, "", "--catalog x.tsv --out shards", {"verb": "prepare", "source": "kaleido-tsv"}),
    (MOVED_SHARDS, "export RUN --out x", "", {"verb": "export", "overrides": ["data.shards=DIR"]}),
], ids=lambda value: value.name if isinstance(value, Option) else None)
def test_what_the_command_line_spells_its_own_way_it_takes(option: Option, before: str, behind: str, meaning: dict) -> None:
    typed = option.flag.strip("`").removeprefix("kaleido-fast ").replace(" ...", "")
    assert vars(_parse(f"{before} {typed} {behind}".split())).items() >= meaning.items()


def test_an_error_is_taken_over_by_another() -> None:
    inner = OptionError("go on with ", RESUME)
    outer = OptionError("worker 1: ", *message_parts(inner))
    assert (str(outer), outer.with_flags()) == ("worker 1: go on with resume=True", "worker 1: go on with --resume auto")
    assert message_parts(OSError(5, "broken")) == ("[Errno 5] broken",)


def test_it_comes_whole_out_of_a_worker_process() -> None:
    error = pickle.loads(pickle.dumps(OptionError("give ", Option("out"))))
    assert (str(error), error.with_flags()) == ("give out", "give --out")
