"""LR sweep, grid, training and evaluation in sequence; each stage is planned from the results of the one before."""
