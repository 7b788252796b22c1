"""The TensorBoard logs of other programs as a table: their runs, hyperparameters and metrics."""
