"""Which runs `train`, `lr-sweep`, `grid`, `compare` and `evaluate` request. Nothing here writes a file."""

from src.requests.evaluate import evaluation_request
from src.requests.grid import best_cell, best_of_all, first_grid_of, grid_request, with_best_cell
from src.requests.training import compare_request, lr_sweep_request, train_request

__all__ = [
    "best_cell",
    "best_of_all",
    "compare_request",
    "evaluation_request",
    "first_grid_of",
    "grid_request",
    "lr_sweep_request",
    "train_request",
    "with_best_cell",
]
