"""The first figures of an eval.json in one line, with their protocol and what chance gives."""

from typing import Any


def headline(report: dict[str, Any]) -> str:
    """Recalls of both directions, category from the image alone, accuracies of tasks that have classes."""
    itr, tir = report["itr"], report["tir"]
    recalls = ", ".join(
        f"{name} R@1 {percent(one['R@1'])} R@10 {percent(one['R@10'])}"
        for name, one in (("ITR", itr), ("TIR", tir))
    )
    protocol = (
        f"1 in {itr['candidates']}, {itr['queries']} queries x {itr['draws']}; chance R@1 "
        f"{percent(chance_at(1, itr['candidates']))} R@10 {percent(chance_at(10, itr['candidates']))}"
    )
    alone = report["category"]["image"]
    category = f"category from the image alone {percent(alone['accuracy'])} (most frequent {percent(alone['most_frequent'])})"
    tasks = [
        f"{name} {percent(report['tasks'][name])}"
        for name in ("rotation", "jigsaw", "camouflage")
        if name in report["tasks"]
    ]
    return "; ".join([f"{recalls} ({protocol})", category, *tasks])


def percent(value: float) -> str:
    """A fraction as a percentage with one digit."""
    return f"{100 * value:.1f} %"


def chance_at(k: int, candidates: int) -> float:
    """Recall at k of a score that knows nothing."""
    return min(k / candidates, 1.0)
