"""The kaleido tasks, a row each (SPEC 3). A further task is a row of FURTHER, and a name in `kaleido.tasks`.

Nothing else knows their names: plan, source and cut loop over the rows' rules; heads, losses, counts, measures and figures
over the rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from kaleido_fast.kernels.philox import TEXT_DRAW
from kaleido_fast.kernels.tasks import Effect, TaskRule


@dataclass(frozen=True, slots=True)
class KaleidoTask:
    """One task.

    Raises:
        ValueError: as TaskRule.
    """

    name: str  # of its head, its loss and its measures
    grid: int  # the level's image is grid x grid patches
    effect: Effect  # what it does to the level
    num_slots: int = 0  # slots it takes of each sample; 0 for a turn and a permutation
    grid_key: str = ""  # the setting of `kaleido` that changes its grid
    num_slots_key: str = ""  # and its number of slots

    def __post_init__(self) -> None:
        TaskRule(self.grid, self.effect, self.num_slots)

    @property
    def rule(self) -> TaskRule:
        """What the operators know of it; which words it draws, its place in the table decides."""
        return TaskRule(self.grid, self.effect, self.num_slots, draw_of(self.name))

    @property
    def num_classes(self) -> int:
        """Of its label; 0 where it predicts the clean features of its slots."""
        return TaskRule(self.grid, self.effect, self.num_slots).num_classes

    @property
    def num_predictions(self) -> int:
        """How many a sample: the class, or each of its slots."""
        return 1 if self.num_classes else self.num_slots

    @property
    def title(self) -> str:
        """Its name in figures."""
        return self.name.replace("_", " ").replace("color", "colour")


CONTRAST = "itc"  # the loss of SPEC 10
PAPERS = (
    KaleidoTask("rotation", 1, "turn"),
    KaleidoTask("jigsaw", 2, "permute"),
    KaleidoTask("camouflage", 3, "swap", 1),
    KaleidoTask("grey_to_color", 4, "grey", 2, num_slots_key="num_grey"),
    KaleidoTask("blank_to_color", 5, "blank", 3, num_slots_key="num_blank", grid_key="blank_grid"),
)
FURTHER: tuple[KaleidoTask, ...] = ()  # beyond the paper: on where `kaleido.tasks` names them
TASKS: dict[str, KaleidoTask] = {task.name: task for task in (*PAPERS, *FURTHER)}
PAPERS_TASKS = tuple(task.name for task in PAPERS)  # what is on where a config says nothing


def draw_of(name: str) -> int:
    """Index of a task's words in the sample's stream (SPEC 6): 0 for the paper's, then one each for those that draw."""
    further = [task.name for task in TASKS.values() if task.num_classes and task.name not in PAPERS_TASKS]
    return TEXT_DRAW + 1 + further.index(name) if name in further else 0


def papers_class_tasks() -> tuple[str, ...]:
    """Names of the paper's tasks that have classes: what counts on mismatched pairs where a config says nothing."""
    return tuple(task.name for task in PAPERS if task.num_classes)


def losses() -> tuple[str, ...]:
    """Names of all losses."""
    return ("amlm", "itm", CONTRAST, *TASKS)


def loss_weight(weights: Mapping[str, float], loss: str) -> float:
    """Of a loss: as `weights` has it; where it is not named 1, of contrast 0 (SPEC 7 'Loss')."""
    return weights.get(loss, 0.0 if loss == CONTRAST else 1.0)
