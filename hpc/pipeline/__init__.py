"""LR sweep, grid, training and evaluation in sequence, each stage planned from what the one before found."""
