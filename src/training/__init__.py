"""One run from its first step to its result: trainings, LR sweeps, checkpoints and metrics."""
