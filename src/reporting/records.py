"""The schema of the files that the report reads besides those of relay/runs/records.py. Unknown keys are kept.

checks.json is read by a later command, perhaps of other code or after a hand has been at it: a report says what does
not fit, and does not end in a traceback.
"""

from __future__ import annotations

from typing import Any, NotRequired

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from relay.runs.file_schema import FileSchema

_record = with_config(ConfigDict(extra="allow", strict=True, defer_build=True))


@_record
class Operation(TypedDict):
    """A preprocessing operation or an augmentation."""

    operation: str
    parameters: dict[str, Any]


@_record
class Augmentation(Operation):
    """An augmentation."""

    probability: float
    keeps_label: bool
    unless: str


@_record
class SplitFacts(TypedDict):
    """How val and test were drawn; `from` is among the unknown keys, because it is a word of Python."""

    ratio: dict[str, float]
    whole: dict[str, str]
    seed: int
    stratified: bool
    even: bool


@_record
class ClassRow(TypedDict):
    """The images of one class."""

    label: int
    name: str
    train: int
    val: int
    test: int


@_record
class SourceFacts(TypedDict):
    """The images as they came."""

    count: int
    modes: dict[str, int]
    sizes: dict[str, int]
    changes: dict[str, int]


@_record
class Inputs(TypedDict):
    """Whether the inputs are images, and their mode; or their type."""

    images: bool
    type: str


@_record
class Equal(TypedDict):
    """Whether all splits are preprocessed equally."""

    equal: bool


@_record
class Batch(TypedDict):
    """The first batch and what the new network makes of it."""

    images: list[int]
    labels: list[int]
    logits: list[int]
    parameters: int
    all_parameters: int
    initial_loss: float
    expected_loss: float
    gradient_norm: float
    weights_without_gradient: list[str]


@_record
class Baseline(TypedDict):
    """The accuracies of predictions that have learnt nothing."""

    majority_class: int
    majority_accuracy: float
    random_accuracy: float
    chance: float


@_record
class Layer(TypedDict):
    """A layer of the network; `output` is null if the network reads its weights without calling it."""

    name: str
    layer: str
    output: list[int] | None
    parameters: int
    frozen: int


@_record
class Count(TypedDict):
    """The parameters of the network with one value of an option."""

    value: Any
    parameters: int


@_record
class Option(TypedDict):
    """An option of the network."""

    option: str
    value: Any
    role: str
    parameters: list[Count]


@_record
class Named(TypedDict):
    """A class."""

    label: int
    name: str


@_record
class CheckResult(TypedDict):
    """What must hold before training."""

    name: str
    holds: bool


@_record
class Figures(TypedDict):
    """File names beside checks.json; there are no examples of inputs that are no images."""

    classes: str
    examples: NotRequired[str]


@_record
class Checks(TypedDict):
    """checks.json, which src/checking/sanity.py describes."""

    dataset: str
    classes: int
    input_shape: list[int]
    inputs: Inputs
    splits: dict[str, int]
    split: SplitFacts
    source: dict[str, SourceFacts]
    overlaps: dict[str, dict[str, int]]
    class_counts: list[int]
    class_table: list[ClassRow]
    preprocessing: list[Operation]
    preprocessing_equal: Equal
    augmentations: list[Augmentation]
    examples: list[Named]
    baselines: dict[str, Baseline]
    batch: Batch
    layers: list[Layer]
    options: list[Option]
    verdicts: list[CheckResult]
    figures: Figures


@_record
class Pair(TypedDict):
    """Images of one class that were taken for another."""

    true_name: str
    predicted_name: str
    n: int
    share: float


@_record
class AgainstVal(TypedDict):
    """The accuracy minus that on `n` images of val, where `accuracy` is that of the best of `epochs`."""

    n: int
    accuracy: float
    epochs: int
    crossed: float | None
    gap: float
    interval: tuple[float, float]
    explained: bool | None


@_record
class Calibrated(TypedDict):
    """The calibration error, see src/evaluation/calibration.py."""

    value: float
    floor: float
    bound: float
    interval: tuple[float, float]
    miscalibrated: bool


@_record
class Evaluated(TypedDict):
    """evaluation.json, which src/evaluation/summary.py describes."""

    n: int
    metrics: dict[str, float | None]
    intervals: dict[str, list[float]]
    ece: Calibrated | None
    pairs: list[Pair]
    against_val: AgainstVal | None


CHECKS = FileSchema(Checks, "run the checks again")
EVALUATED = FileSchema(Evaluated, "evaluate again")
