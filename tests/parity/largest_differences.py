"""The largest differences of both paths from the authors' golden numbers, as docs/parity.md has them:

    python -m tests.parity.largest_differences
"""

import numpy as np

from tests.parity.fast_path import FastPath
from tests.parity.golden_cases import LAST_STEP, Arrays, Case, Implementation, Wanted
from tests.parity.reference_path import ReferencePath

WAYS = {"packed, operators": FastPath, "plain": ReferencePath}
PARTS = {"activations": ("intermediates/", "predict/"), "logits": ("logits/",), "losses": ("losses/",),
         "gradients": ("gradients/", "global_norm")}


def main() -> None:
    """Print a Markdown table: a row a quantity, a column a path and precision."""
    cases = [(way, Case("small", precision)) for way in WAYS for precision in ("fp32", "float64")]
    columns = [measure(WAYS[way](case), case) for way, case in cases]
    print("| quantity | " + " | ".join(f"{way}, {case.precision}" for way, case in cases) + " |")
    print("| --- |" + " --- |" * len(cases))
    for name in columns[0]:
        print(f"| {name} | " + " | ".join(f"{column[name]:.1e}" if name in column else "" for column in columns) + " |")


def measure(path: Implementation, case: Case) -> dict[str, float]:
    """By quantity, the largest difference relative to the largest magnitude of its array; the worst array's."""
    found = dict(path.forward(case)) | dict(path.gradients(case))
    if case.precision == "fp32":
        found |= path.predict(case)
    worst = {name: largest(found, case.wanted(*prefixes), case) for name, prefixes in PARTS.items()}
    if case.precision == "fp32":
        found = path.train(case, LAST_STEP)
        worst["weights after 4 steps"] = largest(found, case.wanted(f"steps/{LAST_STEP}/weights"), case)
        worst["Adam's moments after 4 steps"] = largest(found, case.wanted(f"steps/{LAST_STEP}/adam_"), case)
    return worst


def largest(found: Arrays, wanted: dict[str, Wanted], case: Case) -> float:
    """Of all arrays that are compared relatively (the key biases' gradients are rounding alone)."""
    worst = 0.0
    for name, want in wanted.items():
        if want.relative and name in found and want.array.size:
            value = case.real_part(name, np.asarray(found[name])).astype(np.float64)
            worst = max(worst, float(np.abs(value - want.array).max() / np.abs(want.array).max()))
    return worst


if __name__ == "__main__":
    main()
