"""Memory of a worker of a run, from shapes: weights, gradients and optimizer states by ZeRO stage, activations, buffers.

Of P trained numbers of w bytes each (4; 2 under bf16 from stage 1 on, stage 0 computes in bf16 over fp32 weights), on N
workers:

    stage   weights        master copy   optimizer   gradients                       at the optimizer's step, besides
    0       4 P                          8 P         4 P                             4 P on several workers: all-reduced as one
    1       w P            4 P / N       8 P / N     w times the reduce bucket       their mean, its flat copy, 4 P / N for bf16
    2       w P            4 P / N       8 P / N     as stage 1                      the same
    3       w P / N + w P  4 P / N       8 P / N     w P / N + the reduce bucket     flat: 4 P / N, + w P / N for bf16

Stage 3 keeps the gathered weights of at most 1e9 numbers. A bucket is allocated as a whole, but on a CPU only what was written
takes memory, so there gradients count as they are made. Activations are followed through the step's own code
(step_memory.py). The peak is that of the forward and backward or of the optimizer's step, whichever is higher. What libraries
keep for themselves (code, workspaces, CUDA's context, an allocator's gaps) is not in it.
"""

from dataclasses import dataclass

import numpy as np

from kaleido_fast.bench.step_memory import StepMemory, step_memory
from kaleido_fast.bench.step_shape import Shape
from kaleido_fast.data.shards.manifest import Vocabulary
from kaleido_fast.training.engine import reduce_bucket_size
from kaleido_fast.training.settings import TrainSettings

FP32, BF16 = 4, 2
MOST_GATHERED = 10**9  # numbers whose gathered weights stage 3 keeps: DeepSpeed's default


@dataclass(frozen=True, slots=True)
class StateBytes:
    """Bytes of weights and what trains them on one worker."""

    weights: int
    master: int  # fp32 copy of the weights, or of this worker's part
    optimizer: int
    gradients: int  # held while the next micro-batch runs: of accumulation, and stage 3's part
    bucket: int  # allocated for reducing gradients
    update: int  # at the optimizer's step, besides all that


@dataclass(frozen=True, slots=True)
class WorkerMemory:
    """Bytes on one worker's device."""

    step: StepMemory
    states: StateBytes
    peak: int

    @property
    def parts(self) -> dict[str, int]:
        """By name, as they are told; they do not all stand at once."""
        states, step = self.states, self.step
        return {
            "weights": states.weights, "master copy": states.master, "optimizer states": states.optimizer,
            "gradients": max(states.gradients, states.bucket) or FP32 * step.num_parameters,
            "patch encoder": step.frozen, "batch": step.batch, "activations": step.forward, "peak": self.peak,
        }


def worker_memory(shape: Shape, words: Vocabulary, lengths: np.ndarray, workers: int) -> WorkerMemory:
    """Of training on micro-batches of (B,) `lengths` text tokens."""
    train = shape.train
    on_cpu, held = shape.run.device == "cpu", train.zero_stage == 0 and train.accumulation > 1
    keep = not held and (on_cpu or train.zero_stage == 0)
    step = step_memory(shape, words, lengths, keep_gradients=keep)
    states = training_states(train, step.num_parameters, workers, bucket_is_whole=not on_cpu)
    fixed = states.weights + states.master + states.optimizer + states.gradients + states.bucket + step.frozen + step.batch
    return WorkerMemory(step, states, fixed + max(step.peak, states.update))


def training_states(train: TrainSettings, parameters: int, workers: int, bucket_is_whole: bool) -> StateBytes:
    """By ZeRO stage, as the module's table says.

    Args:
        bucket_is_whole: the reduce bucket takes memory before it is written (a GPU).
    """
    stage, width = train.zero_stage, BF16 if train.precision == "bf16" and train.zero_stage else FP32
    share = -(-parameters // workers)
    if stage == 0:
        whole = FP32 * parameters
        held, flat = (whole if train.accumulation > 1 else 0), (whole if workers > 1 else 0)
        return StateBytes(whole, 0, 2 * whole, held, 0, whole - held + flat)
    bucket = width * reduce_bucket_size(parameters) if bucket_is_whole else 0
    flat = width * share + (FP32 * share if width != FP32 else 0)
    if stage == 3:
        gathered = width * min(parameters, MOST_GATHERED)
        return StateBytes(width * share + gathered, FP32 * share, 2 * FP32 * share, width * share, bucket, flat)
    held = width * share if train.accumulation > 1 else 0
    return StateBytes(width * parameters, FP32 * share, 2 * FP32 * share, held, bucket, width * share - held + flat)
