"""What launchers say in the environment, as torch and DeepSpeed read it."""

import pytest

from kaleido_fast.training.workers.launcher import name_worker, workers_here

SRUN = {"SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "2", "SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NODELIST": "gpu[03-04]",
        "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "4(x2)"}
TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "host", "MASTER_PORT": "29400"}


def test_tasks_of_srun_get_their_names() -> None:
    environment = dict(SRUN)
    assert name_worker(environment) and workers_here(environment) == 4
    assert {name: environment[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")} == {
        "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "gpu03"}
    other = SRUN | {"SLURM_STEP_ID": "3"}
    name_worker(other)
    assert 20000 <= int(environment["MASTER_PORT"]) < 32000 and environment["MASTER_PORT"] != other["MASTER_PORT"]


@pytest.mark.parametrize(("nodes", "first"), [
    ("login", "login"), ("a1,b2", "a1"), ("gpu[03-05,9],login", "gpu03"), ("gpu[7,9]", "gpu7"), ("r[1-2]n[10-14]", "r1n10"),
])
def test_the_first_node_is_where_workers_meet(nodes: str, first: str) -> None:
    environment = SRUN | {"SLURM_STEP_NODELIST": nodes}
    name_worker(environment)
    assert environment["MASTER_ADDR"] == first


@pytest.mark.parametrize("environment", [
    {},
    {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},  # an sbatch script without srun
    {"SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_ID": "0", "SLURM_PROCID": "0"},  # srun --pty bash
])
def test_one_process_is_alone(environment: dict[str, str]) -> None:
    assert not name_worker(environment)


@pytest.mark.parametrize("under", [{}, SRUN])
def test_what_torchrun_said_stands(under: dict[str, str]) -> None:
    environment = under | TORCHRUN
    assert name_worker(environment)
    assert environment == under | TORCHRUN


def test_what_the_user_said_stands_under_srun() -> None:
    environment = SRUN | {"MASTER_PORT": "1234"}
    name_worker(environment)
    assert environment["MASTER_PORT"] == "1234"


def test_half_a_set_is_refused() -> None:
    with pytest.raises(ValueError, match="WORLD_SIZE is set but RANK, LOCAL_RANK is not; start workers with torchrun"):
        name_worker({"WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"})
