"""The sections of the report in their order; section 0 comes first and is made last."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from src.reporting.blocks import Block
from src.reporting.closing import diary_section, general_section, references_section, reproducibility_section
from src.reporting.comparing import comparison_section
from src.reporting.data import data_section
from src.reporting.model import model_section, overfit_section
from src.reporting.rates import lr_section
from src.reporting.report import Report
from src.reporting.search import grid_section, refined_section
from src.reporting.training import evaluation_section, training_section

__all__ = ["SECTIONS", "general_section"]

# In the order of the report.
SECTIONS: tuple[Callable[[Report], Iterator[Block]], ...] = (
    data_section,
    model_section,
    overfit_section,
    lr_section,
    grid_section,
    training_section,
    comparison_section,
    refined_section,
    evaluation_section,
    diary_section,
    reproducibility_section,
    references_section,
)
