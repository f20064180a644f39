"""The plain path as the golden cases ask it: ReferenceStep on the fast path's golden batch."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kaleido_fast.authors.fixed_plan import BLANK, GREY
from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.kernels.geometry import level_offsets
from kaleido_fast.reference.kaleido_bert import Features, ReferenceKaleidoBert, at_slots, shown
from kaleido_fast.reference.losses import LossSettings
from kaleido_fast.reference.optimizer import OPTIMIZERS, clip_, reference_parameter_groups
from kaleido_fast.reference.step import ReferenceResult, ReferenceStep
from kaleido_fast.reference.weights import from_fast, to_fast
from kaleido_fast.training.schedule import learning_rate
from tests.authors.variables import to_authors
from tests.parity.fast_path import NAMES, FastPath, golden_batch
from tests.parity.golden_cases import BASE_RATE, PATCHES, TEXT, TOTAL_STEPS, Arrays, Case

LEVELS = ("rotation", "jigsaw", "camouflage", "greymask", "blankmask")


class ReferencePath:
    """Implementation of golden_cases: ReferenceKaleidoBert with the settings of configs/authors.yaml.

    The authors' names are reached by way of KaleidoBertModel's.
    """

    def __init__(self, case: Case) -> None:
        fast = FastPath(case)
        self.config, self.named = fast.config, fast.model
        self.model = ReferenceKaleidoBert(fast.config.model, fast.config.kaleido, fast.model.vocabulary)
        self.model.to(fast.model.pooler.weight.dtype).load_state_dict(from_fast(fast.model.state_dict()))
        train = self.config.train
        settings = LossSettings(train.task_weights, train.losses_on_mismatched, self.config.reference)
        self.step = ReferenceStep(self.model, fast.step.rules, 0, settings)

    def forward(self, case: Case) -> Arrays:
        batch, seen = golden_batch(case), {}
        handles = self._watch(seen)
        with torch.no_grad():
            result = self.step(batch)
        for handle in handles:
            handle.remove()
        found = self._losses(result) | self._logits(result) | {
            f"intermediates/{name}": value for name, value in (seen | self._intermediates(batch, result)).items()}
        return {name: value.numpy() for name, value in found.items()}

    def gradients(self, case: Case) -> Arrays:
        self.model.zero_grad()
        self.step(golden_batch(case)).loss.backward()
        found = self._named("gradients", {name: p.grad for name, p in self.model.named_parameters()})
        return found | {"global_norm": clip_(self.model.parameters(), 0.0).numpy()}

    def train(self, case: Case, steps: int) -> Arrays:
        batch, train, found = golden_batch(case), self.config.train, {}
        groups = reference_parameter_groups(self.model, train.weight_decay, authors=True)
        optimizer = OPTIMIZERS[train.optimizer](groups, lr=0.0, betas=train.betas, eps=train.eps)
        for t in range(1, steps + 1):
            rate = learning_rate(t - 1, TOTAL_STEPS, base=BASE_RATE, warmup_steps=int(0.1 * TOTAL_STEPS),
                                 schedule=train.schedule)
            for settings in optimizer.param_groups:
                settings["lr"] = rate
            optimizer.zero_grad()
            result = self.step(batch)
            result.loss.backward()
            norm = clip_(self.model.parameters(), train.clip_norm)
            optimizer.step()
            losses = {name.replace("losses", "losses_before"): value for name, value in self._losses(result).items()}
            found |= {f"steps/{t}/{name}": value.detach().numpy() for name, value in losses.items()}
            found |= {f"steps/{t}/lr": np.array(rate), f"steps/{t}/global_norm": norm.numpy()}
            found |= self._named(f"steps/{t}/weights", dict(self.model.named_parameters()), case.weights)
        states = {name: optimizer.state[p] for name, p in self.model.named_parameters()}
        for key in ("m", "v"):
            found |= self._named(f"steps/{steps}/adam_{key}", {name: state[key] for name, state in states.items()})
        (count,) = {state["t"] for state in states.values()}
        return found | {f"steps/{steps}/global_step": np.array(count)}

    def predict(self, case: Case) -> Arrays:
        batch = golden_batch(case, blanked=False)
        with torch.no_grad():
            features, locations = batch.patches.features, batch.patches.locations
            outputs = self.model(batch.plan, batch.lengths, Features(features, features, locations))
        found = {"itm": outputs.logits["itm"], "pooled_output": outputs.pooled, "sequence_output": outputs.sequence}
        return {f"predict/{name}": value.numpy() for name, value in found.items()}

    def _named(self, prefix: str, tensors: dict[str, Tensor], template: Any = None) -> Arrays:
        """By the authors' names."""
        fast = to_fast({name: tensor.detach() for name, tensor in tensors.items()}, self.named.state_dict())
        return {f"{prefix}/{name}": value.copy() for name, value in to_authors(fast, self.named, template).items()}

    def _losses(self, result: ReferenceResult) -> dict[str, Tensor]:
        found = {f"losses/{NAMES.get(name, name)}": mean for name, mean in result.losses.means.items()}
        return found | {"losses/total": result.loss}

    def _logits(self, result: ReferenceResult) -> dict[str, Tensor]:
        logits, plan = result.outputs.logits, result.plan
        found = {f"logits/{NAMES.get(name, name)}": value if value.dim() == 2 else value.flatten(0, 1)
                 for name, value in logits.items()}
        samples = torch.arange(len(plan.masked_positions))[:, None]
        return found | {"logits/mlm": logits["amlm"][samples, plan.masked_positions.clamp(min=0).long()].flatten(0, 1)}

    def _intermediates(self, batch: Batch, result: ReferenceResult) -> dict[str, Tensor]:
        outputs, plan = result.outputs, result.plan
        rows = shown(batch.patches.features, plan.source)
        return {
            "embedding_output": outputs.embeddings, "sequence_output": outputs.sequence, "pooled_output": outputs.pooled,
            "attention_mask": outputs.real[:, None].expand(-1, TEXT + PATCHES, -1).to(rows),
            "blanked_features": rows[:, 30:], "target_raw_grey": at_slots(rows[:, 14:30], plan.part(GREY).slots).flatten(0, 1),
            "target_blank": at_slots(batch.patches.features[:, 30:55], plan.part(BLANK).slots).flatten(0, 1),
        }

    def _watch(self, seen: dict[str, Tensor]) -> list[Any]:
        """Hooks that put what passes through the modules into `seen`, by the files' names."""
        def out(name: str) -> Any:
            return lambda module, inputs, output: seen.__setitem__(name, output)

        embeddings = self.model.embeddings
        modules: dict[str, nn.Module] = {"embeddings/text": embeddings.text}
        modules |= {f"embeddings/{name}": level for name, level in zip(LEVELS, embeddings.levels, strict=True)}
        assert level_offsets(embeddings.grids) == (0, 1, 5, 14, 30)
        for number, layer in enumerate(self.model.encoder.layers):
            modules |= {f"encoder/layer_{number}/attention_output": layer.attention_norm,
                        f"encoder/layer_{number}/output": layer}
        handles = [module.register_forward_hook(out(name)) for name, module in modules.items()]
        for number, layer in enumerate(self.model.encoder.layers):
            name = f"encoder/layer_{number}/self_attention"
            handles.append(layer.attention.output.register_forward_pre_hook(
                lambda module, inputs, name=name: seen.__setitem__(name, inputs[0])))
        return handles
