"""The schema of an experiment: one frozen model per section, with the defaults that keep the report's file valid.

`load_config` reads a file and overrides into a `Config`; src/config_errors.py words what is wrong with them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from src import yaml_file
from src.config_errors import describe, nearest
from src.errors import ConfigError

Count = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Size = tuple[Count, Count]
Triple = tuple[float, float, float]

# The short names that `hparams` knows for its axes; any other axis is a key path of the configuration.
AXES: Mapping[str, str] = {
    "lr": "train.optimizer.lr",
    "batch_size": "train.batch_size",
    "weight_decay": "train.optimizer.weight_decay",
    "momentum": "train.optimizer.momentum",
    "optimizer": "train.optimizer.name",
    "scheduler": "train.scheduler.name",
    "seed": "train.seed",
    "num_modules": "model.num_modules",
    "branch_channels": "model.branch_channels",
    "stem_channels": "model.stem_channels",
    "dropout": "model.dropout",
    "activation": "model.activation",
    "batch_norm": "model.batch_norm",
    "residual": "model.residual",
}


class Section(BaseModel):
    """A part of the configuration: unknown keys are refused, values are not converted, nothing changes later."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Split(Section):
    """Which images are for what. `val` and `test` are drawn from the data set's `valid` split, class by class."""

    train: str = "train"
    valid: str = "valid"
    val: Count = 8000
    test: Annotated[int, Field(ge=0)] = 2000
    seed: int = 42


class Dataset(Section):
    """Where the images come from: a Hub name, a folder in the Hub's layout, or `synthetic`."""

    name: str = "zh-plus/tiny-imagenet"
    source: Literal["auto", "hub", "folder", "synthetic"] = "auto"
    revision: str | None = None
    root: str = "./data"
    split: Split = Split()
    download: bool = True
    num_workers: Annotated[int, Field(ge=0)] = 4
    shuffle: bool = True
    classes: Annotated[int, Field(ge=2)] | None = None
    train_per_class: Count | None = None
    synthetic_seed: int = 0
    synthetic_train_per_class: Count = 100
    synthetic_valid_per_class: Count = 50


class Normalize(Section):
    """Per channel: (value / 255 - mean) / std."""

    mean: Triple = (0.485, 0.456, 0.406)
    std: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (
        0.229,
        0.224,
        0.225,
    )


class Preprocess(Section):
    """What every image goes through, in all splits. `resize` is (height, width) in pixels."""

    resize: Size = (64, 64)
    normalize: Normalize = Normalize()
    text_tokenizer: None = None


class RandomCrop(Section):
    """Zero padding of `padding` pixels on every side, then a window of `size` x `size` at a random place."""

    size: Count = 64
    padding: Annotated[int, Field(ge=0)] = 4


class ColorJitter(Section):
    """Factors are drawn from [max(0, 1 - v), 1 + v]; the hue is turned by up to `hue` of a full circle."""

    brightness: NonNegative = 0.0
    contrast: NonNegative = 0.0
    saturation: NonNegative = 0.0
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0


class Augment(Section):
    """Random changes of training images; null switches one off."""

    random_flip: bool = False
    random_crop: RandomCrop | None = None
    color_jitter: ColorJitter | None = None


class Model(Section):
    """The network of src/model.py."""

    type: Literal["inception_multibranch"] = "inception_multibranch"
    num_classes: Annotated[int, Field(ge=2)] = 200
    input_shape: tuple[Literal[3], Count, Count] = (3, 64, 64)
    num_modules: Count = 6
    branch_channels: tuple[Count, Count, Count] = (64, 64, 64)
    stem_channels: Count = 64
    hidden_sizes: tuple[Count, ...] | None = None
    activation: Literal["relu", "gelu", "tanh"] = "relu"
    dropout: Fraction = 0.0
    batch_norm: bool = True
    residual: bool = False
    attention: Literal[False] = False
    rnn: None = None


class Optimizer(Section):
    """By name; `momentum` is used by sgd and rmsprop alone."""

    name: Literal["sgd", "adam", "adamw", "rmsprop"] = "adam"
    lr: Annotated[float, Field(gt=0)] = 0.002
    weight_decay: NonNegative = 0.00001
    momentum: Fraction = 0.9


class Scheduler(Section):
    """The learning rate over time; `step_size` is in epochs, `warmup_steps` in steps."""

    name: Literal["none", "step", "cosine", "onecycle"] = "none"
    step_size: Count = 10
    gamma: Annotated[float, Field(gt=0)] = 0.1
    warmup_steps: Annotated[int, Field(ge=0)] = 0


class Train(Section):
    """How long, how fast, on what. `max_steps` ends a run before its epochs do."""

    seed: int = 42
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"
    batch_size: Count = 32
    epochs: Count = 40
    max_steps: Count | None = None
    overfit_small: bool = False
    overfit_size: Count = 32
    optimizer: Optimizer = Optimizer()
    scheduler: Scheduler = Scheduler()


class Metrics(Section):
    """What is measured on val and test beside the loss; accuracy is what the best epoch is chosen by."""

    classification: tuple[Literal["accuracy", "top5_accuracy", "macro_f1"], ...] = ("accuracy",)
    regression: Annotated[tuple[str, ...], Field(max_length=0)] = ()
    log_every_steps: Count = 10


class Checkpoint(Section):
    """When the exact state is written, beside when the run is asked to stop; `keep` whole ones remain."""

    every_steps: Count | None = None
    every_minutes: Annotated[float, Field(gt=0)] | None = 5.0
    keep: Annotated[int, Field(ge=2)] = 2


class LrFinder(Section):
    """The learning-rate sweep: `num_steps` steps from `min_lr` to `max_lr`, evenly on the log scale, one run a seed."""

    min_lr: Annotated[float, Field(gt=0)] = 1e-7
    max_lr: Annotated[float, Field(gt=0)] = 1.0
    num_steps: Annotated[int, Field(ge=10)] = 200
    smoothing: Fraction = 0.9
    diverge_factor: Annotated[float, Field(gt=1)] = 4.0
    seeds: tuple[int, ...] | None = None
    tag: str = "lr_finder"


class Hparams(Section):
    """The grid: `epochs` of every cell, and the axes, each a list of values, the first turning slowest."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False)

    epochs: Count | None = None
    tag: str = "grid_search"

    @property
    def axes(self) -> dict[str, tuple[Any, ...]]:
        """Axis name -> its values, in the order of the file."""
        return dict(self.model_extra or {})


class Refine(Section):
    """The second, narrower grid around the best cell of the first one (M8 of the report)."""

    epochs: Count = 8
    lr_factors: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (0.75, 1.0, 1.25)
    weight_decay_factors: Annotated[tuple[NonNegative, ...], Field(min_length=1)] = (1.0, 0.5, 0.1)
    tag: str = "grid_refined"


class Evaluation(Section):
    """What `evaluate` measures: a checkpoint on a split."""

    checkpoint: str | None = None
    split: Literal["val", "test"] = "test"


class Paths(Section):
    """Where results go; relative paths start at the folder of the call."""

    runs_dir: str = "./runs"
    artifacts_dir: str = "./artifacts"
    logs_dir: str = "./logs"


class Config(Section):
    """One experiment, complete: the YAML file over these defaults, `--set` over the file."""

    dataset: Dataset = Dataset()
    preprocess: Preprocess = Preprocess()
    augment: Augment = Augment()
    model: Model = Model()
    train: Train = Train()
    metrics: Metrics = Metrics()
    checkpoint: Checkpoint = Checkpoint()
    lr_finder: LrFinder = LrFinder()
    hparams: Hparams = Hparams()
    refine: Refine = Refine()
    evaluation: Evaluation = Evaluation()
    paths: Paths = Paths()

    @model_validator(mode="after")
    def _sections_agree(self) -> Config:
        problems = list(_disagreements(self))
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain values (lists, not tuples), as YAML and JSON hold them."""
        plain: dict[str, Any] = self.model_dump(mode="json")
        return plain

    def content_key(self, kind: str) -> str:
        """A key of 16 hex digits: equal for two configs exactly where a run of this kind would come out equal.

        Where the run is written, how often it is saved and on which device it runs are not part of it.
        """
        content = self.to_dict()
        kept = {name: content[name] for name in ("dataset", "preprocess", "augment", "model", "train", "metrics")}
        for name in ("root", "download", "num_workers"):
            del kept["dataset"][name]
        del kept["train"]["device"]
        kept |= {"kind": kind}
        if kind == "lr_sweep":
            kept["lr_finder"] = content["lr_finder"]
        if kind == "evaluate":
            kept["evaluation"] = content["evaluation"]
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def _disagreements(config: Config) -> Iterable[str]:
    size = config.preprocess.resize
    if config.model.input_shape[1:] != size:
        yield (
            f"model.input_shape: {list(config.model.input_shape)} does not fit preprocess.resize {list(size)}; "
            f"set model.input_shape=[3,{size[0]},{size[1]}]"
        )
    crop = config.augment.random_crop
    if crop and (crop.size, crop.size) != size:
        yield (
            f"augment.random_crop.size: {crop.size} does not fit preprocess.resize {list(size)}; "
            f"train and val images must have one size: set it to {size[0]}, or augment.random_crop=null"
        )
    pools = (config.model.num_modules - 1) // 2
    if min(size) < 2**pools:
        yield f"model.num_modules: {config.model.num_modules} modules halve the image {pools} times, and {list(size)} cannot be; give fewer"
    classes = config.model.num_classes
    if config.dataset.classes is not None and config.dataset.classes != classes:
        yield f"model.num_classes: {classes} does not fit dataset.classes {config.dataset.classes}; set both to one value"
    for name, count in (("val", config.dataset.split.val), ("test", config.dataset.split.test)):
        if count % classes:
            lower, upper = count - count % classes, count - count % classes + classes
            near = f"{lower} or {upper}" if lower else f"{upper}"
            yield f"dataset.split.{name}: {count} does not divide into {classes} classes evenly; the nearest that do: {near}"
    if config.lr_finder.min_lr >= config.lr_finder.max_lr:
        yield f"lr_finder.min_lr: {config.lr_finder.min_lr} must be below lr_finder.max_lr {config.lr_finder.max_lr}"
    for axis, values in config.hparams.axes.items():
        yield from _axis_problems(axis, values)


def _axis_problems(axis: str, values: Any) -> Iterable[str]:
    if axis not in AXES and not _is_key_path(axis):
        known = [*AXES, "epochs", "tag"]
        yield f"hparams.{axis}: unknown axis{nearest(axis, known)}; an axis is one of {', '.join(AXES)}, or a key path such as train.scheduler.gamma"
    elif not isinstance(values, tuple) or not values:
        yield f"hparams.{axis}: {_plain(values)!r} is not a list of values to try; write [{_plain(values)}]"
    elif len({json.dumps(_plain(value)) for value in values}) != len(values):
        yield f"hparams.{axis}: {_plain(values)!r} holds a value twice; keep each once"


def _is_key_path(path: str) -> bool:
    section, *rest = path.split(".")
    if section in ("hparams", "paths", "refine", "evaluation", "lr_finder", "checkpoint") or not rest:
        return False
    model: Any = Config
    for name in path.split("."):
        fields = getattr(model, "model_fields", {})
        if name not in fields:
            return False
        model = _section_of(fields[name].annotation)
    return True


def _section_of(annotation: Any) -> Any:
    """The section model in `annotation`, also where it may be null."""
    options = [annotation, *getattr(annotation, "__args__", ())]
    return next((option for option in options if isinstance(option, type) and issubclass(option, Section)), None)


def _tuples(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _tuples(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_tuples(item) for item in value)
    return value


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def parse_override(text: str) -> tuple[str, Any]:
    """`a.b=1` -> ("a.b", 1), the value read as YAML. Raises ConfigError."""
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise ConfigError(f"--set {text!r}: write it as key.path=value, for example --set train.optimizer.lr=3e-4")
    return path.strip(), yaml_file.parse_yaml(value, f"--set {text!r}") if value.strip() else None


def set_key(content: dict[str, Any], path: str, value: Any) -> None:
    """Set `path` ("train.optimizer.lr") in nested dicts, making the sections that are absent or null."""
    names = path.split(".")
    if names[0] == "hparams" and len(names) > 2:
        names = ["hparams", ".".join(names[1:])]
    for name in names[:-1]:
        if not isinstance(content.get(name), dict):
            content[name] = {}
        content = content[name]
    content[names[-1]] = value


def make_config(content: Mapping[str, Any], source: str, overrides: Mapping[str, Any] | None = None) -> Config:
    """Validate plain values, `overrides` (key path -> value) over them.

    Raises ConfigError, which begins with `source` and lists every problem: key path, value, what is allowed.
    """
    values = json.loads(json.dumps(content))
    for path, value in (overrides or {}).items():
        set_key(values, path, value)
    # A section that the file leaves empty reads as null, which says no more than an absent one.
    values = {
        name: section for name, section in values.items() if section is not None or name not in Config.model_fields
    }
    try:
        return Config.model_validate(_tuples(values))
    except ValidationError as error:
        raise ConfigError(describe(error, Config, source)) from None


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Read a YAML file, with `overrides` such as "train.optimizer.lr=3e-4" over it. Raises ConfigError."""
    parsed = dict(parse_override(text) for text in overrides)
    return make_config(yaml_file.read_mapping(Path(path)), str(path), parsed)
