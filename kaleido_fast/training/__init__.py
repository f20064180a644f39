"""Pre-training: the step, the loop, the DeepSpeed engine, checkpoints, telemetry."""
