"""Contrast over several workers is that of one: the workers are threads here, and their collectives meet at a barrier."""

import threading
from collections.abc import Callable

import pytest
import torch

from kaleido_fast.kernels.plan_rules import GROUP
from kaleido_fast.model.contrast import Embeddings, Pairs, contrast_loss
from kaleido_fast.training.workers import stream_blocks
from kaleido_fast.training.workers.stream_blocks import StreamBlocks

WORKERS, GROUPS = 3, 4  # groups a worker
NUMBER = WORKERS * GROUPS * GROUP


class Meeting:
    """What stands in for torch.distributed among threads."""

    def __init__(self) -> None:
        self.barrier, self.given, self.place = threading.Barrier(WORKERS), [None] * WORKERS, threading.local()

    def exchange(self, x: torch.Tensor) -> list[torch.Tensor]:
        self.given[self.place.rank] = x.clone()
        self.barrier.wait()
        everything = [part.clone() for part in self.given]
        self.barrier.wait()
        return everything

    def all_gather(self, parts: list[torch.Tensor], x: torch.Tensor) -> None:
        for part, other in zip(parts, self.exchange(x), strict=True):
            part.copy_(other)

    def all_reduce(self, x: torch.Tensor) -> None:
        x.copy_(torch.stack(self.exchange(x)).sum(dim=0))

    def run(self, work: Callable[[int], None]) -> None:
        def started(rank: int) -> None:
            self.place.rank = rank
            try:
                work(rank)
            except BaseException:
                self.barrier.abort()
                raise

        threads = [threading.Thread(target=started, args=(rank,)) for rank in range(WORKERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _micro_step() -> tuple[torch.Tensor, Pairs]:
    torch.manual_seed(0)
    sides = torch.nn.functional.normalize(torch.randn(2, NUMBER, 8, dtype=torch.float64), dim=2)
    return sides, Pairs(torch.randint(0, 50, (NUMBER,)), torch.randint(0, 40, (NUMBER,)), torch.rand(NUMBER) < 0.9)


@pytest.mark.parametrize("position", [0, 5 * GROUP])  # a resumed run's first group may be any worker's
@pytest.mark.parametrize("block", [GROUP, 3 * GROUP, 4 * GROUP, NUMBER])
def test_three_workers_give_the_losses_and_gradients_of_one(
    monkeypatch: pytest.MonkeyPatch, position: int, block: int
) -> None:
    sides, pairs = _micro_step()
    whole = sides.clone().requires_grad_()
    whole_scale = torch.tensor([9.0], dtype=torch.float64, requires_grad=True)
    expected, right = contrast_loss(Embeddings(*whole), whole_scale, pairs, block, pairs.present)
    expected.backward()

    meeting = Meeting()
    monkeypatch.setattr(stream_blocks, "dist", meeting)
    first = position // GROUP
    owner = (first + torch.arange(NUMBER) // GROUP) % WORKERS  # group g of the stream goes to worker g mod workers
    results: dict[int, tuple[torch.Tensor, ...]] = {}

    def work(rank: int) -> None:
        own = owner == rank
        mine = sides[:, own].clone().requires_grad_()
        scale = torch.tensor([9.0], dtype=torch.float64, requires_grad=True)
        blocks = StreamBlocks.at(position, rank, WORKERS)
        loss, share = blocks.loss(Embeddings(*mine), scale, Pairs(*(column[own] for column in pairs)), block, across=True)
        loss.backward()
        results[rank] = (loss.detach(), share, mine.grad, scale.grad)

    meeting.run(work)
    losses, shares, gradients, scales = zip(*(results[rank] for rank in range(WORKERS)), strict=True)
    torch.testing.assert_close(sum(losses), expected.detach())
    torch.testing.assert_close(sum(shares), right)
    torch.testing.assert_close(sum(scales), whole_scale.grad)
    for rank, gradient in enumerate(gradients):
        torch.testing.assert_close(gradient, whole.grad[:, owner == rank])


def test_in_validation_blocks_are_the_workers_own() -> None:
    sides, pairs = _micro_step()
    part = Pairs(*(column[:96] for column in pairs))
    loss, _ = StreamBlocks(1, 3).loss(Embeddings(*sides[:, :96]), torch.tensor([9.0]), part, 64, across=False)
    torch.testing.assert_close(loss, contrast_loss(Embeddings(*sides[:, :96]), torch.tensor([9.0]), part, 32, part.present)[0])
