"""Messages that name options: by fields in Python, by flags on the command line."""

import pickle

from kaleido_fast.options import Option, OptionError, message_with_flags


def test_a_message_names_options_as_its_reader_knows_them() -> None:
    error = OptionError(Option("max_side"), "=0 of {a} %s must lie in 16..65500; give another ", Option("out"))
    assert str(error) == "max_side=0 of {a} %s must lie in 16..65500; give another out"
    assert message_with_flags(error) == "--max-side=0 of {a} %s must lie in 16..65500; give another --out"
    assert message_with_flags(ValueError("as it is")) == "as it is"


def test_it_comes_whole_out_of_a_worker_process() -> None:
    error = pickle.loads(pickle.dumps(OptionError("give ", Option("out"))))
    assert (str(error), error.with_flags()) == ("give out", "give --out")
