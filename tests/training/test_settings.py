"""What is reckoned from the settings of training."""

from kaleido_fast.training.settings import TrainSettings


def test_samples_of_a_step_are_those_of_all_micro_batches_and_workers() -> None:
    assert TrainSettings(micro_batch=48, accumulation=3).samples_per_step(num_workers=2) == 288
