"""Which worker this process is: what torchrun, the deepspeed launcher or SLURM's srun say in the environment.

torch and DeepSpeed read RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT. torchrun and deepspeed set them; srun
says the same in its own words. In an sbatch script outside srun, SLURM's variables describe the job, not this process:
only those of a job step are read.
"""

import re
from collections.abc import MutableMapping

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
FIRST_PORT, PORTS = 20000, 12000  # below those that systems give to connections


def name_worker(environment: MutableMapping[str, str]) -> bool:
    """Complete the five variables in `environment` where srun started us; whether there are several workers' names at all.

    Raises:
        ValueError: only a part of the variables is set.
    """
    if "RANK" not in environment and int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        for name, value in _names_from_srun(environment).items():
            environment.setdefault(name, value)
    if "WORLD_SIZE" not in environment:
        return False
    missing = [name for name in NAMES if name not in environment]
    if missing:
        raise ValueError(f"WORLD_SIZE is set but {', '.join(missing)} is not; start workers with torchrun, deepspeed or srun")
    return True


def workers_here(environment: MutableMapping[str, str]) -> int:
    """How many workers share this machine, as far as the launcher says."""
    local = environment.get("LOCAL_WORLD_SIZE") or environment.get("LOCAL_SIZE")  # torchrun's and deepspeed's word
    if local is None:
        number = re.match(r"\d+", environment.get("SLURM_STEP_TASKS_PER_NODE", ""))  # "4", "4(x2)", "4,3"
        local = number[0] if number else None
    return int(local or 1)


def _names_from_srun(environment: MutableMapping[str, str]) -> dict[str, str]:
    job, step = int(environment["SLURM_JOB_ID"]), int(environment["SLURM_STEP_ID"])
    return {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": environment["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "MASTER_ADDR": _first_host(environment["SLURM_STEP_NODELIST"]),
        "MASTER_PORT": str(FIRST_PORT + (job * 16 + step) % PORTS),  # the same on all nodes, another for another step
    }


def _first_host(nodes: str) -> str:
    """The first of SLURM's list of nodes: "gpu[03-05,9],login" is gpu03."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])+", nodes)
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first[0] if first else nodes)
