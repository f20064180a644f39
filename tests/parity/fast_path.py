"""The fast path as the golden cases ask it: PretrainStep itself, on a batch with features, locations and a plan."""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kaleido_fast.authors.fixed_plan import BLANK, GREY, fixed_plan, rows_in_place
from kaleido_fast.authors.weights import from_authors
from kaleido_fast.config import Config, load_config
from kaleido_fast.data.batches.batch import Batch, HostBatch
from kaleido_fast.data.batches.patches import ReadyRows
from kaleido_fast.kernels.plan_rules import IGNORED, NONE
from kaleido_fast.kernels.source import clean_source
from kaleido_fast.model.kaleido_bert import Encoded, KaleidoBertModel
from kaleido_fast.model.kaleido_tasks import plan_rules
from kaleido_fast.model.losses import loss_scales
from kaleido_fast.training.engine import build_optimizer
from kaleido_fast.training.schedule import learning_rate
from kaleido_fast.training.step import PretrainStep
from tests.authors.variables import settings_from_authors, to_authors
from tests.parity.golden_cases import BASE_RATE, GOLDEN, PATCHES, TEXT, TOTAL_STEPS, Arrays, Case
from tests.places import CONFIGS

LEVELS = ("rotation", "jigsaw", "camouflage", "grey_mask", "blank_mask")  # of the feature and location columns
NAMES = {"amlm": "mlm", "grey_to_color": "greymask", "blank_to_color": "blankmask"}  # the files' names of our losses


class FastPath:
    """Implementation of golden_cases: KaleidoBertModel with the case's weights, losses and optimizer as configs/authors.yaml
    has them.

    Args:
        change: of the config, to see that a difference is caught.
        edit: of the batch, likewise.
    """

    absent = ("intermediates/attention_mask",)  # packed sequences need none

    def __init__(
        self, case: Case, change: Callable[[Config], Config] = lambda config: config,
        edit: Callable[[Batch], Batch] = lambda batch: batch,
    ) -> None:
        config = load_config(CONFIGS / "authors.yaml")
        theirs = json.loads((GOLDEN / "tf_checkpoint" / "config.json").read_text())
        model, kaleido, vocabulary = settings_from_authors(theirs, case.weights)
        self.config = change(replace(config, model=model, kaleido=kaleido))
        self.edit = edit
        self.model = KaleidoBertModel(self.config.model, kaleido, vocabulary)
        self.model.load_state_dict(from_authors(case.weights, self.model))
        self.model.to(torch.from_numpy(np.zeros(0, case.dtype)).dtype)
        rules = plan_rules(kaleido, mask_id=103, ordinary_first=104, ordinary_last=999)
        self.step = PretrainStep(self.model, rules, 0, {}, self.config.train.losses_on_mismatched, self.config.reference)

    def forward(self, case: Case) -> Arrays:
        batch = self.edit(golden_batch(case))
        with torch.no_grad(), recorded(self.model) as seen:
            losses = self._losses(batch)
        found = {f"losses/{name}": value for name, value in losses.items()}
        found |= {f"logits/{name}": seen[f"logits/{name}"] for name in ("itm", "rotation", "jigsaw", "camouflage",
                                                                           "greymask", "blankmask")}
        found["logits/mlm"] = self._by_slot(batch, seen["logits/mlm"])
        found |= {f"intermediates/{name}": value for name, value in self._intermediates(batch, seen).items()}
        return {name: value.detach().numpy() for name, value in found.items()}

    def gradients(self, case: Case) -> Arrays:
        self.model.zero_grad()
        self._losses(self.edit(golden_batch(case)))["total"].backward()
        grads = {name: parameter.grad for name, parameter in self.model.named_parameters()}
        found = {f"gradients/{name}": value for name, value in to_authors(grads, self.model).items()}
        norm = torch.nn.utils.get_total_norm(list(grads.values()))
        return found | {"global_norm": norm.numpy()}

    def train(self, case: Case, steps: int) -> Arrays:
        batch, train = self.edit(golden_batch(case)), self.config.train
        optimizer, found = build_optimizer(self.step, train), {}
        for t in range(1, steps + 1):
            rate = learning_rate(t - 1, TOTAL_STEPS, base=BASE_RATE, warmup_steps=int(0.1 * TOTAL_STEPS),
                                 schedule=train.schedule)
            for settings in optimizer.param_groups:
                settings["lr"] = rate
            optimizer.zero_grad()
            losses = self._losses(batch)
            losses["total"].backward()
            optimizer.step()
            found |= {f"steps/{t}/losses_before/{name}": value.detach().numpy() for name, value in losses.items()}
            found |= {f"steps/{t}/lr": np.array(rate), f"steps/{t}/global_norm": optimizer.grad_norm.numpy()}
            weights = to_authors(self.model.state_dict(), self.model, template=case.weights)
            found |= {f"steps/{t}/weights/{name}": value.copy() for name, value in weights.items()}
        return found | self._state(optimizer, steps)

    def predict(self, case: Case) -> Arrays:
        batch = golden_batch(case, blanked=False)
        with torch.no_grad():
            encoded = self.encode(batch)
            found = {"itm": self.model.itm_logits(encoded.pooled), "pooled_output": encoded.pooled,
                     "sequence_output": unpacked(encoded.sequence, batch.host.lengths)}
        return {f"predict/{name}": value.numpy() for name, value in found.items()}

    def pooled(self, case: Case) -> Tensor:
        """(B, H) with gradient, nothing blanked: what the category heads read."""
        return self.encode(golden_batch(case, blanked=False)).pooled

    def encode(self, batch: Batch) -> Encoded:
        """The encoder alone."""
        return self.model.encode(batch.tokens, batch.lengths, batch.host.lengths, batch.patches.features, batch.plan.source,
                                 locations=batch.patches.locations)

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        """By the files' names, as the total takes them; the total alone has a gradient."""
        rows = self.step.count(batch)
        result = self.step(batch, rows, rows, None)
        scales = loss_scales(rows, {}, self.config.reference.amlm_epsilon)
        losses = {NAMES.get(name, name): value * scales[name] for name, value in result.loss_sums.items()}
        return losses | {"total": result.loss}

    def _by_slot(self, batch: Batch, rows: Tensor) -> Tensor:
        """(10B, V): the masked words' logits at their slots, not a number at the others."""
        counted = batch.present if "amlm" in self.config.train.losses_on_mismatched else batch.match
        slots = rows.new_full((batch.plan.masked_positions.numel(), rows.shape[1]), float("nan"))
        slots[((batch.plan.masked_positions != NONE) & counted[:, None]).flatten()] = rows
        return slots

    def _intermediates(self, batch: Batch, seen: dict[str, Tensor]) -> dict[str, Tensor]:
        lengths, drawn, rows = batch.host.lengths, batch.plan, batch.patches.features.flatten(0, 1)
        found = {name: unpacked(value, lengths) for name, value in seen.items()
                 if name in ("embedding_output", "sequence_output") or name.startswith("encoder/")}
        found["pooled_output"] = seen["pooled"].tanh()
        embedded, first = found["embedding_output"], TEXT
        found["embeddings/text"] = embedded[:, :TEXT]
        for name, grid in zip(("rotation", "jigsaw", "camouflage", "greymask", "blankmask"), range(1, 6), strict=True):
            found[f"embeddings/{name}"] = embedded[:, first : first + grid**2]
            first += grid**2
        read = torch.where((drawn.source < 0)[..., None], 0, rows[drawn.source.clamp(min=0)])
        found["blanked_features"] = read[:, 30:]
        greyed = (14 + drawn.part(GREY).slots.long())[..., None].expand(-1, -1, read.shape[2])
        found["target_raw_grey"] = read.gather(1, greyed).flatten(0, 1)
        blank = next(task for task in self.model.tasks if task.name == "blank_to_color")
        count = drawn.part(BLANK).slots.numel()
        found["target_blank"] = self.model.color_targets(blank, batch.patches.features, drawn, batch.present, count)
        return found

    def _state(self, optimizer: torch.optim.Optimizer, steps: int) -> dict[str, np.ndarray]:
        states = {name: optimizer.state[parameter] for name, parameter in self.model.named_parameters()}
        found: dict[str, np.ndarray] = {}
        for theirs, ours in (("adam_m", "exp_avg"), ("adam_v", "exp_avg_sq")):
            values = to_authors({name: state[ours] for name, state in states.items()}, self.model)
            found |= {f"steps/{steps}/{theirs}/{name}": value for name, value in values.items()}
        counts = {float(state["step"]) for state in states.values()}
        assert len(counts) == 1, f"steps counted apart: {counts}"
        return found | {f"steps/{steps}/global_step": np.array(counts.pop())}


def golden_batch(case: Case, blanked: bool = True) -> Batch:
    """The case's rows as the loader hands over shards made of the authors' files."""
    inputs, size = case.inputs, len(case.inputs["input_ids"])
    put = {name: torch.from_numpy(value) for name, value in inputs.items()}
    ids = put["input_ids"].int()
    weights = inputs["masked_lm_weights"] == 1
    grey = put["img_grey_lm_ids"].int()
    drawn = fixed_plan(
        ids, torch.from_numpy(np.where(weights, inputs["masked_lm_positions"], NONE)).int(),
        torch.from_numpy(np.where(weights, inputs["masked_lm_ids"], IGNORED)).int(),
        rotation=put["img_rotate_gt"].flatten(), permutation=put["img_jigsaw_gt"].flatten(),
        camouflage=put["img_camouflage_gt"].flatten(), grey_slots=grey, blank_slots=put["img_blank_lm_ids"].int(),
    )
    if not blanked:
        own = clean_source(size, (1, 2, 3, 4, 5), grey.shape[1], ids.device)
        drawn = drawn._replace(source=torch.where(drawn.source < 0, own, drawn.source).int())
    levels = [put[f"img_feature_convert_{name}"].view(size, -1, 96) for name in LEVELS]
    stored = torch.cat([*levels, put["img_grey_mask_gt"].view(size, -1, 96)], dim=1)
    locations = torch.cat([put[f"img_loc_position_{name}"].view(size, -1, 5) for name in LEVELS], dim=1)
    lengths, match = inputs["input_mask"].sum(axis=1).astype(np.int32), inputs["nx_sent_labels"].ravel() == 1
    products, present = np.zeros(size, np.int64), np.ones(size, bool)
    host = HostBatch(np.arange(size), products, products, lengths, match, present, weights.sum(axis=1).astype(np.int32))
    features = rows_in_place(stored.to(torch.from_numpy(np.zeros(0, case.dtype)).dtype), grey)
    nothing = torch.zeros(size, dtype=torch.int64)
    return Batch(
        patches=ReadyRows(features, locations), tokens=ids, lengths=torch.from_numpy(lengths),
        alignment=torch.zeros_like(ids).long(), keys=nothing,
        image_products=nothing, match=torch.from_numpy(match), present=torch.from_numpy(present),
        epochs=nothing, host=host, plan=drawn,
    )


@contextlib.contextmanager
def recorded(model: KaleidoBertModel) -> Iterator[dict[str, Tensor]]:
    """What passes through the model while it runs, by the golden files' names; packed where the model packs."""
    seen: dict[str, Tensor] = {}

    def words(head: nn.Module, inputs: tuple, _: Any) -> None:
        seen["logits/mlm"] = head.logits(*inputs[:2])

    def out(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: tuple, output: Any) -> None:
            seen[name] = output[0] if isinstance(output, tuple) else output
        return hook

    def into(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple) -> None:
            seen[name] = inputs[0]
        return hook

    handles = [model.embeddings.register_forward_hook(out("embedding_output")),
               model.encoder.register_forward_hook(out("sequence_output")),
               model.pooler.register_forward_hook(out("pooled")),
               model.amlm.register_forward_hook(words), model.itm.register_forward_hook(out("logits/itm"))]
    for number, layer in enumerate(model.encoder.layers):
        handles += [layer.attention_output.register_forward_pre_hook(into(f"encoder/layer_{number}/self_attention")),
                    layer.attention_norm.register_forward_hook(out(f"encoder/layer_{number}/attention_output")),
                    layer.register_forward_hook(out(f"encoder/layer_{number}/output"))]
    for name, head in model.kaleido_heads.items():
        handles.append(head.register_forward_hook(out(f"logits/{NAMES.get(name, name)}")))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def unpacked(rows: Tensor, lengths: np.ndarray) -> Tensor:
    """(B, 119, W) of packed (N, W): text from 0, patches from 64, not a number between."""
    out = rows.new_full((len(lengths), TEXT + PATCHES, rows.shape[1]), float("nan"))
    for sample, part in zip(out, rows.split([int(length) + PATCHES for length in lengths]), strict=True):
        length = len(part) - PATCHES
        sample[:length], sample[TEXT:] = part[:length], part[length:]
    return out
