"""Workers of one machine divide its cores, unless the user has said how many each takes."""

import pytest
import torch
from torch._inductor.config import decide_compile_threads

from kaleido_fast.training.workers import group
from kaleido_fast.training.workers.group import COMPILE_THREADS


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One of 64 cores and 8 workers; how many threads torch was told to compute with."""
    told: list[int] = []
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(64)))
    monkeypatch.setattr(torch, "set_num_threads", told.append)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv(COMPILE_THREADS, "")  # so that it is taken away again
    monkeypatch.delenv(COMPILE_THREADS)
    return told


def test_each_worker_compiles_with_its_share(machine: list[int]) -> None:
    group._share_cores("cuda")
    assert decide_compile_threads() == 8 and machine == []


@pytest.mark.parametrize(("workers", "threads"), [("1", 32), ("2", 32), ("3", 21), ("100", 1)])
def test_not_more_than_torch_takes_by_itself_and_at_least_one(
    machine: list[int], monkeypatch: pytest.MonkeyPatch, workers: str, threads: int
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", workers)
    group._share_cores("cuda")
    assert decide_compile_threads() == threads


def test_on_a_cpu_they_compute_with_it_too(machine: list[int]) -> None:
    group._share_cores("cpu")
    assert machine == [8] and decide_compile_threads() == 8


def test_what_the_user_says_stays(machine: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv(COMPILE_THREADS, "5")
    group._share_cores("cpu")
    assert machine == [] and decide_compile_threads() == 5
