"""The DeepSpeed engine: ZeRO, precision, accumulation, checkpoints. The one door to deepspeed."""

import argparse
import contextlib
import io
import logging
import os
import pickle
import shutil
import types
import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from kaleido_fast.training.authors_adam import AuthorsAdam
from kaleido_fast.training.settings import RunSettings, TrainSettings
from kaleido_fast.training.step import ClippedAdamW, parameter_groups

MOST_REDUCED = 500_000_000  # DeepSpeed's default
WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  # torch's name
RUN_STATE = "run"  # where our values lie among those of DeepSpeed's checkpoint


class Engine:
    """`module` under DeepSpeed, trained with AdamW or the authors' Adam; call it with what the module's forward takes.

    At stage 0 clipping and the skip of a step that is not finite are the optimizer's; from stage 1 on, where each
    worker sees a part of the gradient, they are DeepSpeed's, which adds 1e-6 to the norm. One worker alone at stage 0 has
    the whole gradient already: it is neither flattened nor reduced nor copied back. From stage 1 on the optimizer takes
    it as one flat piece, so that it is copied there for one worker too.

    Args:
        converted: the state that `load` will be given was converted for this number of workers (`convert_checkpoint`).
    """

    def __init__(
        self, module: nn.Module, train: TrainSettings, run: RunSettings, num_workers: int, converted: bool = False
    ) -> None:
        self._deepspeed = _import_deepspeed(run)
        _bound_groups(self._deepspeed, timedelta(seconds=run.timeout_s))
        self._converted = converted
        self._stage = train.zero_stage
        self.optimizer = build_optimizer(module, train)
        self._engine, *_ = self._deepspeed.initialize(
            model=module, optimizer=self.optimizer, dist_init_required=False,
            config=deepspeed_config(train, num_workers, _num_trained(module)) | {"checkpoint": {"load_universal": converted}},
        )
        self.accumulation = train.accumulation
        self.num_workers = num_workers
        self._alone = num_workers == 1 and train.zero_stage == 0
        if self._alone:
            self._engine.enable_backward_allreduce = False

    @property
    def module(self) -> Any:
        return self._engine.module

    def __call__(self, *inputs: Any) -> Any:
        return self._engine(*inputs)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss`, a part of the optimizer step's loss: the parts are summed, not averaged.

        DeepSpeed divides by the number of micro-batches and averages over the workers; SPEC 7 divides by the rows
        of the whole step instead, so both are multiplied back.
        """
        self._engine.backward(loss * (self.accumulation * self.num_workers))

    def step(self, learning_rate: float) -> None:
        """One micro-batch's end; at the last of an optimizer step the weights move."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        if self._alone and self._engine.is_gradient_accumulation_boundary():
            self._fill_gradients()
        self._engine.step()

    def _fill_gradients(self) -> None:
        """Zeros for weights that no loss reached, as the reduction gives several workers: the optimizer passes none over."""
        for parameter in self.module.parameters():
            if parameter.requires_grad and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)

    def grad_norm(self) -> float:
        """Global gradient norm of the last optimizer step, before clipping. Waits for the device."""
        if self._stage == 0:
            return float(self.optimizer.grad_norm)
        return float(self._engine.get_global_grad_norm())

    @property
    def skipped(self) -> Tensor | bool:
        """Whether the last optimizer step was left out since its gradient was not finite; at stage 0 on the device, so that
        nothing waits for it (() fp32, 1 or 0)."""
        return self.optimizer.found_inf if self._stage == 0 else bool(self._engine.optimizer.overflow)

    def destroy(self) -> None:
        """Let go of what DeepSpeed hung on the module; the engine cannot be used any more."""
        self._engine.destroy()

    def weights(self, part: nn.Module | None = None) -> dict[str, Tensor]:
        """The full state dict of the module, or of a part of it, detached, on the CPU (stage 3 gathers it; call on all
        workers)."""
        parameters = list(self.module.parameters()) if self._stage == 3 else []
        gather = self._deepspeed.zero.GatheredParameters(parameters) if parameters else contextlib.nullcontext()
        with gather:
            state = (self.module if part is None else part).state_dict()
            return {key: value.detach().cpu().clone() for key, value in state.items()}

    def save(self, folder: Path, tag: str, state: dict[str, Any]) -> None:
        """DeepSpeed's folder of the training state and `state` (plain values) under folder/tag; all workers call.

        Raises:
            OSError: it cannot be written whole.
        """
        try:
            self._engine.save_checkpoint(str(folder), tag=tag, client_state={RUN_STATE: state}, save_latest=False)
        except RuntimeError as error:  # torch's archive writer says nothing of the disk, only where it stopped
            if "inline_container" not in str(error):
                raise
            raise OSError("the disk is full or a limit on the size of files was met") from error

    def load(self, folder: Path, tag: str) -> None:
        """Restore what `save` wrote; nothing but tensors and plain values is unpickled."""
        group_settings = [{key: value for key, value in group.items() if key != "params"}
                          for group in self.optimizer.param_groups]
        with _tensors_only(folder / tag):
            path, _ = self._engine.load_checkpoint(str(folder), tag=tag)
        if path is None:
            raise ValueError(f"{folder / tag}: DeepSpeed found no training state there")
        if self._converted:
            self._mend(group_settings)

    def _mend(self, group_settings: list[dict[str, Any]]) -> None:
        """What DeepSpeed's universal load gets wrong at stage 3: all parts share one step count, which then advances
        once a part, and every parameter group has the first one's settings. At stages 1 and 2 this changes nothing."""
        for group, settings in zip(self.optimizer.param_groups, group_settings, strict=True):
            group.update(settings)
        for parameter, state in self.optimizer.state.items():
            state["step"] = torch.as_tensor(state["step"]).to(parameter.device, torch.float32, copy=True)


def build_optimizer(module: nn.Module, train: TrainSettings) -> ClippedAdamW:
    """The optimizer that `train.optimizer` names, over all of the module's trained parameters."""
    authors = train.optimizer == "authors"
    return (AuthorsAdam if authors else ClippedAdamW)(
        parameter_groups(module, train.weight_decay, vectors_decay=authors),
        max_norm=train.clip_norm if train.zero_stage == 0 else None,
        lr=train.learning_rate, betas=train.betas, eps=train.eps,
    )


def deepspeed_config(train: TrainSettings, num_workers: int, num_parameters: int) -> dict[str, Any]:
    """The DeepSpeed JSON of a run, generated from its settings and the number of its trained parameters."""
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": train.micro_batch,
        "gradient_accumulation_steps": train.accumulation,
        "train_batch_size": train.samples_per_step(num_workers),
        "gradient_clipping": train.clip_norm if train.zero_stage else 0.0,  # always written: the default is 1.0
        # From stage 1 on a buffer of this many gradients is allocated, whatever the model's size: 1 or 2 GB by default.
        "zero_optimization": {"stage": train.zero_stage, "reduce_bucket_size": reduce_bucket_size(num_parameters)},
        "zero_allow_untested_optimizer": True,  # ClippedAdamW is torch's AdamW
        "steps_per_print": 1 << 30,
        "timers": {"throughput": {"enabled": False}},  # on, it waits for the device twice a micro-batch
    }
    if train.precision == "bf16" and train.zero_stage == 0:
        config["torch_autocast"] = {"enabled": True, "dtype": "bfloat16"}
    elif train.precision == "bf16":
        config["bf16"] = {"enabled": True}
    return config


def reduce_bucket_size(num_parameters: int) -> int:
    """Gradients that are reduced at once: all of a model that is smaller than DeepSpeed's default."""
    return min(num_parameters, MOST_REDUCED)


def _num_trained(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def saved_workers(checkpoint: Path) -> int | None:
    """How many workers a checkpoint's state is cut for; None where it is whole (stage 0) and any number can load it."""
    return len(list(checkpoint.glob("*zero_pp_rank_*_optim_states.pt"))) or None


def saved_state(checkpoint: Path, run: RunSettings) -> dict[str, Any]:
    """The `state` with which a checkpoint was saved; its tensors stay on the disk."""
    _import_deepspeed(run)
    file = min(checkpoint.glob("*model_states.pt"))
    with _tensors_only(checkpoint):
        return torch.load(file, map_location="cpu", mmap=True)[RUN_STATE]


def convert_checkpoint(checkpoint: Path, out: Path) -> None:
    """Write the state under `checkpoint`, cut for some number of workers, as one that any number can load (DeepSpeed's
    universal checkpoint); one worker calls it. Nothing but tensors and plain values is unpickled."""
    from deepspeed.checkpoint import ds_to_universal

    shutil.rmtree(out, ignore_errors=True)
    options = argparse.Namespace(
        input_folder=str(checkpoint), output_folder=str(out), num_extract_workers=1, num_merge_workers=1,
        keep_temp_folder=False, strict=True, inject_missing_state=True)
    out.mkdir(parents=True)
    with _tensors_only(checkpoint), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        ds_to_universal.main(options)


def _import_deepspeed(run: RunSettings) -> types.ModuleType:
    if run.device == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed
    import deepspeed.ops

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    # DeepSpeed calls torch's collectives by names that torch 2.13 calls old, once a step.
    warnings.filterwarnings("ignore", message=r".*torch\.distributed\..* is deprecated", category=FutureWarning)
    if run.device == "cpu":
        # Its only reader is the check for a shared-memory operator that serves inference; without this every start
        # compiles that operator for half a minute and needs a C++ compiler.
        deepspeed.ops.__compatible_ops__ = {}
    return deepspeed


def _bound_groups(deepspeed: types.ModuleType, timeout: timedelta) -> None:
    """Let the process groups that DeepSpeed makes give up after `timeout`.

    Its `new_group` takes no timeout and passes none on, so that torch's ten or thirty minutes would hold, whatever the group
    was started with; 0.19.8 has no setting for it. So the one object through which it calls torch makes them here.
    """
    deepspeed.init_distributed(deepspeed.get_accelerator().communication_backend_name(), dist_init_required=False)
    deepspeed.comm.comm.cdb.new_group = lambda ranks: dist.new_group(ranks, timeout=timeout)


@contextlib.contextmanager
def _tensors_only(checkpoint: Path) -> Iterator[None]:
    """Inside, torch.load takes nothing but tensors, plain values and the three classes of DeepSpeed's files.

    DeepSpeed asks for everything (weights_only=False) in a dozen places; torch's own switch, an environment variable, is
    stronger than what a caller asks for.

    Raises:
        ValueError: the files hold something else.
    """
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    before = os.environ.get(WEIGHTS_ONLY)
    os.environ[WEIGHTS_ONLY] = "1"
    try:
        with torch.serialization.safe_globals([LossScaler, ZeroStageEnum, fragment_address]):
            yield
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{checkpoint}: holds more than tensors and plain values, not loaded ({reason})") from None
    finally:
        if before is None:
            del os.environ[WEIGHTS_ONLY]
        else:
            os.environ[WEIGHTS_ONLY] = before
