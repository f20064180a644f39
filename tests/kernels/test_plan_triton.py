"""plan's kernel, interpreted, against the reference bit for bit; its bounds, its traffic, the operator on a GPU.

Runs are guarded: fresh outputs hold poison, so a value that is not written shows, and no access leaves a buffer.
triton-viz's sanitizer cannot follow Philox.
"""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from kaleido_fast.kernels import masking, plan as plan_module
from kaleido_fast.kernels.plan import operator_arguments, plan_reference
from kaleido_fast.kernels.plan_outputs import Plan
from kaleido_fast.kernels.plan_rules import PlanRules
from tests.kernels.guards import Guards
from tests.kernels.interpreter import interpreted
from tests.kernels.mutations import Break, assert_caught, broken_twin
from tests.kernels.plan_cases import RULES, plan_of, rules_of
from tests.kernels.traffic import SECTOR, recorded

Batch = dict[str, Tensor]
MakeBatch = Callable[..., Batch]
DEFAULT = rules_of()
QUICK = {"default", "random masking", "more slots than tokens", "fixed scale", "levels in another order", "no levels",
         "two of blank, grey", "two swaps, two turns"}
SWITCHES = [pytest.param(x, id=name, marks=() if name in QUICK else pytest.mark.slow) for name, x in RULES.items()]


def run(batch: Batch, rules: PlanRules, twin: ModuleType | None = None) -> Plan:
    twin = twin or interpreted("plan_triton")
    with Guards() as guards:
        return plan_of({name: guards.place(tensor) for name, tensor in batch.items()}, rules, twin.plan_triton)


def assert_equal(drawn: Plan, expected: Plan) -> None:
    assert drawn.tasks == expected.tasks
    for name, value, want in zip(Plan._fields[:-1], drawn.tensors, expected.tensors, strict=True):
        assert value.dtype == torch.int32 and value.shape == want.shape and value.is_contiguous(), name
        assert torch.equal(value, want), name


def assert_is_reference(batch: Batch, rules: PlanRules, twin: ModuleType | None = None) -> None:
    assert_equal(run(batch, rules, twin), plan_of(batch, rules, plan_reference))


def with_holes(batch: Batch) -> Batch:
    """Holes, an only product, full alignment with the sign bit, bits on [CLS], [SEP] and padding."""
    batch["present"][torch.tensor([0, 5, 9])] = False
    batch["products"][11:] = batch["products"][2]
    batch["alignment"][7, :] = -1
    batch["lengths"][7] = batch["tokens"].shape[1]
    batch["lengths"][8] = 2
    return batch


def golden_group(group: int, batch: Batch, outputs: Plan, rules: PlanRules) -> tuple[Batch, Plan]:
    """One group of the golden file and its plan, which moves with its first row."""
    rows = slice(16 * group, 16 * group + 16)
    expected = outputs.map(lambda x: x[rows].clone())
    for tensor, size in ((expected.donors, 16 * group), (expected.source, 16 * group * rules.num_rows)):
        tensor -= size * (tensor >= 0)
    return {name: tensor[rows] if tensor.dim() else tensor for name, tensor in batch.items()}, expected


@pytest.mark.parametrize("group", [2, 21])
def test_golden_groups(group: int, golden_batch: Batch, golden_outputs: Plan, golden_rules: PlanRules) -> None:
    """Group 2 has one product alone, so no donors."""
    batch, expected = golden_group(group, golden_batch, golden_outputs, golden_rules)
    assert_equal(run(batch, golden_rules), expected)


@pytest.mark.slow
def test_whole_golden_file(golden_batch: Batch, golden_outputs: Plan, golden_rules: PlanRules) -> None:
    """In one launch; not guarded, which would take half as long again."""
    drawn = plan_of(golden_batch, golden_rules, interpreted("plan_triton").plan_triton)
    assert_equal(drawn, golden_outputs)


@pytest.mark.parametrize("settings", SWITCHES)
def test_switches(settings: dict[str, object], make_batch: MakeBatch) -> None:
    batch = with_holes(make_batch(16, num_tokens=20, bits=0.03, seed=len(settings)))
    assert_is_reference(batch, rules_of(**settings))


@pytest.mark.parametrize(("num_samples", "num_tokens", "bits"), [
    (16, 2, 0.1), (16, 3, 0.5), (16, 17, 0), (32, 33, 0.01), (16, 100, 0.002),
    pytest.param(16, 512, 0.0004, marks=pytest.mark.slow), pytest.param(16, 64, 1, marks=pytest.mark.slow),
])
def test_shapes_and_alignments(num_samples: int, num_tokens: int, bits: float, make_batch: MakeBatch) -> None:
    assert_is_reference(make_batch(num_samples, num_tokens, bits, seed=num_tokens), DEFAULT)


def test_ties_go_to_the_lower_token_then_the_lower_position(
    make_batch: MakeBatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one priority for every two indices, on both sides."""
    coarse = Break("ties", "index.to(tl.uint32)", "(index & 0x7FFFFFFE).to(tl.uint32)", file="philox_triton")
    real = masking.draw
    for module in (masking, plan_module):
        monkeypatch.setattr(module, "draw", lambda *args: real(*args[:-1], torch.as_tensor(args[-1]) & 0x7FFFFFFE))
    batch = make_batch(16, num_tokens=20, bits=0.3)
    coarse_twin = broken_twin("plan_triton", coarse, tmp_path)
    assert_is_reference(batch, DEFAULT, coarse_twin)


def test_strides_and_epochs(make_batch: MakeBatch) -> None:
    batch = make_batch(16, num_tokens=12, bits=0.05)
    batch |= {"seed": torch.tensor(-3), "epochs": torch.full((16,), 2**28 - 1)}
    strided = {name: torch.stack([x, x], dim=-1)[..., 0] for name, x in batch.items()}
    assert not strided["tokens"].is_contiguous() and not strided["present"].is_contiguous()
    assert_equal(run(strided, DEFAULT), plan_of(batch, DEFAULT, plan_reference))


def test_empty_batch_launches_nothing(make_batch: MakeBatch) -> None:
    drawn = run({name: x[:0] if x.dim() else x for name, x in make_batch(16).items()}, DEFAULT)
    assert drawn.source.shape == (0, 55) and drawn.masked_tokens.shape == (0, 24)


def test_long_texts_are_refused(make_batch: MakeBatch) -> None:
    batch = make_batch(16, num_tokens=513, bits=0)
    message = r"plan: tokens \(16, 513\) must have T at most 512 on a CUDA device; cut the texts to that"
    with pytest.raises(ValueError, match=message):
        plan_of(batch, DEFAULT, plan_module.plan_triton)


def test_cuda_registration_hands_every_argument_on(make_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = make_batch(16, num_tokens=8, bits=0.1)
    rules = rules_of(**RULES["two swaps, two turns"], max_masked_tokens=3, guided=False)
    monkeypatch.setattr(plan_module, "plan_triton", interpreted("plan_triton").plan_triton)
    drawn = plan_module._plan_cuda(*plan_of(batch, rules, operator_arguments))
    assert_equal(Plan(*drawn, rules.tasks), plan_of(batch, rules, plan_reference))


def sectors(row_bytes: int, rows: int = 16) -> int:
    """Bytes of the sectors that each of `rows` rows, end to end, touches."""
    return SECTOR * sum(-(-(b + 1) * row_bytes // SECTOR) - b * row_bytes // SECTOR for b in range(rows))


def test_traffic_is_inputs_once_and_outputs_once(make_batch: MakeBatch) -> None:
    """Of 64 tokens; alignment is read a second time, from the first-level cache, where pairs are drawn."""
    batch = make_batch(16, num_tokens=64, bits=0.01)
    batch["lengths"][:] = 64
    with recorded() as traffic:
        plan_of(batch, DEFAULT, interpreted("plan_triton").plan_triton)
    one = 16 * SECTOR  # a row's single number
    assert traffic.reads == {
        "tokens_ptr": sectors(4 * 64), "alignment_ptr": sectors(8 * 64), "products_ptr": sectors(8 * 16),
        "lengths_ptr": one, "keys_ptr": one, "present_ptr": one, "seed_ptr": one, "epochs_ptr": one,
    } | {"products_ptr": 16 * 4 * SECTOR}
    assert traffic.writes == {
        "masked_tokens_ptr": sectors(4 * 64), "source_ptr": sectors(4 * 55),
        "masked_positions_ptr": sectors(4 * 10), "masked_labels_ptr": sectors(4 * 10),
        "labels_ptr": sectors(4 * 5), "slots_ptr": sectors(4 * 6),
    } | {f"{name}_ptr": one for name in ("donors", "donor_slots", "num_masked")}


BREAKS = (
    Break("evidence may be taken", "bound = tl.where(token == its_token, _GONE, bound)",
          "bound = tl.where((token == its_token) & takes_token, _GONE, bound)", file="masking_triton"),
    Break("stale bounds are walked", "& holds(usable, position)", "& (position >= 0)", file="masking_triton"),
    Break("no room falls to no side", "token_room > 0, patch_fits == 0)", "token_room >= 0, patch_fits == 0)",
          file="masking_triton"),
    Break("one side alone", "* 2 + side)", "* 2 + side * 0)", file="masking_triton"),
    Break("passed over as good as open", "(state.to(tl.int64) << 41)", "(state.to(tl.int64) * 0)",
          file="masking_triton"),
    Break("holes are donors", "fits = is_there &", "fits = (step >= 0) &"),
    Break("a level's room never shrinks", "room & -room", "0", file="masking_triton"),
    Break("a label beside its column", "tl.where(column == at, permutation", "tl.where(column == 0, permutation"),
    Break("slots in a hole", "is_free = (place >= tl.sum", "is_free = (place > tl.sum"),
    Break("key's high word", "(key >> 32)", "(key >> 31)", file="philox_triton"),
)


@pytest.mark.slow
def test_mutations_are_caught(make_batch: MakeBatch, tmp_path: Path) -> None:
    """Dense alignments use up every budget in the walk, sparse ones leave most to the fill."""
    dense, sparse = (with_holes(make_batch(16, num_tokens=20, bits=bits)) for bits in (0.1, 0.01))

    def check(twin: ModuleType) -> None:
        assert_is_reference(dense, DEFAULT, twin)
        assert_is_reference(sparse, DEFAULT, twin)

    assert_caught("plan_triton", BREAKS, check, tmp_path)


@pytest.mark.gpu
class TestOnDevice:
    def test_golden_file(self, golden_batch: Batch, golden_outputs: Plan, golden_rules: PlanRules) -> None:
        drawn = plan_of({name: x.cuda() for name, x in golden_batch.items()}, golden_rules)
        assert_equal(drawn.map(Tensor.cpu), golden_outputs)

    @pytest.mark.parametrize("settings", RULES.values(), ids=RULES)
    def test_switches(self, settings: dict[str, object], make_batch: MakeBatch) -> None:
        batch, rules = with_holes(make_batch(64, num_tokens=64, bits=0.03)), rules_of(**settings)
        drawn = plan_of({name: x.cuda() for name, x in batch.items()}, rules)
        assert_equal(drawn.map(Tensor.cpu), plan_of(batch, rules))

    def test_longest_texts(self, make_batch: MakeBatch) -> None:
        batch = make_batch(32, num_tokens=512, bits=0.5)
        drawn = plan_of({name: x.cuda() for name, x in batch.items()}, DEFAULT)
        assert_equal(drawn.map(Tensor.cpu), plan_of(batch, DEFAULT))

    def test_operator_and_compiler(self, make_batch: MakeBatch) -> None:
        batch = {name: x.cuda() for name, x in make_batch(32).items()}
        torch.library.opcheck(torch.ops.kaleido_fast.plan.default, plan_of(batch, DEFAULT, operator_arguments))
        compiled = torch.compile(lambda batch: plan_of(batch, DEFAULT), fullgraph=True)
        assert_equal(compiled(batch), plan_of(batch, DEFAULT))

    def test_graph_replays_with_new_epochs(self, make_batch: MakeBatch) -> None:
        batch = {name: x.cuda() for name, x in make_batch(32).items()}
        plan_of(batch, DEFAULT)  # compiles
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            drawn = plan_of(batch, DEFAULT)
        batch["epochs"] += 1
        graph.replay()
        assert_equal(drawn, plan_of(batch, DEFAULT))
