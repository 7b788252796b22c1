"""One run from its first step to its result: training, the LR sweep, evaluation, checkpoints and metrics."""
