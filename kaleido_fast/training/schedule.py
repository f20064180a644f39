"""Learning-rate schedules (SPEC 8)."""

from typing import Literal


def learning_rate(
    step: float, total_steps: int | None, *, base: float, warmup_steps: int, schedule: Literal["linear", "authors"]
) -> float:
    """The learning rate of optimizer step `step`, counted from 0 (a fraction where the batch of a step has changed).

    linear: base * (s+1)/W while s < W, then down to 0 at T along a line from (W, base).
    authors: base * (1 - s/T) * min(1, s/W), so that step 0 moves nothing (their code).

    Args:
        total_steps: T; None while a run in minutes has not measured its speed, when only the warm-up is known.
    Raises:
        ValueError: T is None after the warm-up or under `authors`.
    """
    if schedule == "linear" and step < warmup_steps:
        return base * (step + 1) / warmup_steps
    if total_steps is None:
        raise ValueError(f"learning_rate: step {step} is past the warm-up of {warmup_steps}; the total must be known")
    if schedule == "authors":
        return base * (1 - min(step, total_steps) / total_steps) * (step / warmup_steps if step < warmup_steps else 1)
    return base * max(0.0, (total_steps - step) / max(1, total_steps - warmup_steps))


def fitting_warmup(warmup_steps: int, total_steps: int) -> int:
    """The warm-up a run of `total_steps` can hold: at most half of it."""
    return min(warmup_steps, total_steps // 2)
