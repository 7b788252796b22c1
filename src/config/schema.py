"""The schema of an experiment: one frozen model per section, with the defaults that keep the report's file valid."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from relay.config.sections import Checkpoint, Count, Fraction, NonNegative, Paths, ProjectFolder, Section, Select, Tag
from relay.program.own_code import is_own
from src.config.train_section import Train
from src.models.options import Model

Size = tuple[Count, Count]
MetricName = Literal["accuracy", "top5_accuracy", "macro_f1"]
# Of so many classes, the right one is always among the five most probable.
ALWAYS_IN_TOP5 = 5
# Why a key allows only null or one value. The report's file sets all of them.
CONSTANT_KEYS = {
    "model.rnn": "Relay's networks have no recurrent part; leave it null, or name a network of your own in model.type",
    "preprocess.text_tokenizer": "no text is tokenized here; leave it null",
    "model.attention": "no network here has attention; leave it false",
    "metrics.regression": "experiments are classifications, without a regression target; leave the list empty",
}


# What a key of several types allows.
UNION_KEYS = {
    "dataset.split.val": "give a number of images, a share of them such as 0.1, or the name of a split",
    "dataset.split.test": "give a number of images, 0 for none, a share of them such as 0.1, or the name of a split",
    "preprocess.normalize": "give mean and std, auto, or null",
    "metrics.select.name": "give accuracy, top5_accuracy, macro_f1 or loss",
    "model.num_classes": "give a number from 2 on, or auto",
    "model.input_shape": "give a list of whole numbers from 1 on, or auto",
}
SplitName = Annotated[str, Field(min_length=1)]
Share = Annotated[float, Field(gt=0, lt=1)]


class Split(Section):
    """Which images are trained on, and which are measured."""

    # The names that zh-plus/tiny-imagenet gives its two splits on the Hub.
    train: SplitName = "train"
    """The name of the split of the source that is trained on."""
    valid: SplitName | None = "valid"
    """The split that val and test are drawn from. Null: they are drawn from `train`, which then has the rest."""
    val: Count | Share | SplitName = 8000
    """The name of another split, which is taken whole; or how many images, or which share of them, are drawn, class by
    class.
    """
    test: Annotated[int, Field(ge=0)] | Share | SplitName = 2000
    """As `val`. 0: no test images."""
    seed: int = 42
    """The seed of the drawing."""

    @property
    def names(self) -> tuple[str, ...]:
        """The distinct splits of the source that are read: `train` first."""
        names = (self.train, self.pool, self.val, self.test)
        return tuple(dict.fromkeys(name for name in names if isinstance(name, str)))

    @property
    def pool(self) -> str | None:
        """The split of the source that val or test are drawn from; None if each is the whole of a split, or empty."""
        drawn = any(not isinstance(part, str) and part for part in (self.val, self.test))
        return (self.valid or self.train) if drawn else None


class Columns(Section):
    """The names of the columns of a table with the images and their labels."""

    image: Annotated[str, Field(min_length=1)] = "image"
    """The column with the images."""
    label: Annotated[str, Field(min_length=1)] = "label"
    """The column with the labels."""


class Dataset(Section):
    """Where the images come from, and which of them are used."""

    name: str = "zh-plus/tiny-imagenet"
    """A name on the Hub, a folder, torchvision/NAME, module:function of the project, or `synthetic`."""
    source: str = "auto"
    """The kind of source, as src/data/sources.py names it. `auto`: found from `name`."""
    revision: str | None = None
    """The commit, branch or tag of a data set of the Hub."""
    root: str = "./data"
    """The folder for downloads and decoded images."""
    split: Split = Split()
    columns: Columns = Columns()
    """The names of the columns of a table."""
    class_names: Annotated[tuple[str, ...], Field(min_length=2)] | None = None
    """Names of the classes. They replace those that the data has."""
    download: bool = True
    """Whether missing data may be downloaded."""
    num_workers: Annotated[int, Field(ge=0)] = 4
    """The threads that decode images. 0: the main thread decodes them."""
    shuffle: bool = True
    """Whether the training images are shuffled in each epoch."""
    classes: Annotated[int, Field(ge=2)] | None = None
    """Take only this many classes."""
    train_per_class: Count | None = None
    """Take only this many training images of each class."""
    # In Tiny ImageNet, 7 of 10,000 are: a data set with many more holds one split twice.
    allowed_overlap: Annotated[float, Field(ge=0, le=1)] = 0.01
    """The share of measured images that may also be among the training images, or twice in their own split."""
    # numpy's generators refuse negative seeds.
    synthetic_seed: Annotated[int, Field(ge=0)] = 0
    """The seed of generated images."""
    synthetic_train_per_class: Count = 100
    """The generated training images of each class."""
    synthetic_valid_per_class: Count = 50
    """The generated images of each class in the split `valid`."""


class Normalize(Section):
    """Per channel: (value / 255 - mean) / std. The defaults are those of ImageNet, as in torchvision."""

    mean: Annotated[tuple[float, ...], Field(min_length=1)] = (0.485, 0.456, 0.406)
    """The mean of each channel, from 0 to 1."""
    std: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (0.229, 0.224, 0.225)
    """The standard deviation of each channel."""


class Preprocess(Section):
    """What is done to every image of every split.

    Inputs that are no images are only normalised: with `auto` or values that are given, per entry of their first
    dimension.
    """

    resize: Size = (64, 64)
    """The (height, width) in pixels of every image."""
    mode: Literal["RGB", "L", "RGBA"] = "RGB"
    """The channels, in Pillow's words: color, grey (L), or color with transparency (RGBA)."""
    normalize: Normalize | Literal["auto"] | None = Normalize()
    """The mean and deviation of each channel. `auto`: measured on the training images. Null: values stay in [0, 1]."""
    # Here and below, a key that only allows null or one constant is in the report's file, which must stay valid.
    text_tokenizer: None = None
    """Always null."""

    @property
    def channels(self) -> int:
        """How many channels an image has."""
        return {"RGB": 3, "L": 1, "RGBA": 4}[self.mode]

    @property
    def statistics(self) -> Normalize | None:
        """The mean and deviation, once `auto` is resolved; None if nothing is normalised."""
        assert not isinstance(self.normalize, str)
        return self.normalize


class RandomCrop(Section):
    """Zero padding of `padding` pixels on every side, then a random window of `size` x `size` pixels."""

    size: Count = 64
    """The height and width of the window, in pixels."""
    padding: Annotated[int, Field(ge=0)] = 4
    """The pixels of zeros on every side."""


class ColorJitter(Section):
    """Factors are drawn from [max(0, 1 - v), 1 + v]; the hue shifts by up to `hue` of a full circle."""

    brightness: NonNegative = 0.0
    """The largest change of the brightness, as a factor."""
    contrast: NonNegative = 0.0
    """The largest change of the contrast, as a factor."""
    saturation: NonNegative = 0.0
    """The largest change of the saturation, as a factor."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """The largest shift of the hue, as a share of the full circle."""


class Augment(Section):
    """Random changes of training images; null switches one off."""

    random_flip: bool = False
    """Mirror an image with a probability of one half."""
    random_crop: RandomCrop | None = None
    """Pad each image and take a random window of it. Null: off."""
    color_jitter: ColorJitter | None = None
    """Change the colors at random. Null: off."""


class ImageSelect(Select):
    """One of the metrics of an image classifier."""

    name: MetricName | Literal["loss"] = "accuracy"
    """The metric on val that selects the best epoch, cell and training."""


class Metrics(Section):
    """What is measured on val and test besides the loss. Accuracy is always measured."""

    classification: tuple[MetricName, ...] = ("accuracy",)
    """What is measured on val and test besides the loss and the accuracy."""
    regression: Annotated[tuple[str, ...], Field(max_length=0)] = ()
    """Always empty."""
    log_every_steps: Count = 10
    """A row of training metrics is logged every so many steps."""
    select: ImageSelect = ImageSelect()
    """What selects the best epoch, cell and training."""
    test_time_flip: bool = False
    """Show each measured image mirrored, too, and average the two predicted probabilities of each class."""

    @property
    def measured(self) -> tuple[str, ...]:
        """The metrics of every measurement besides its loss."""
        named = (self.select.name, "accuracy", *self.classification)
        return tuple(name for name in dict.fromkeys(named) if name != "loss")

    @property
    def columns(self) -> tuple[str, ...]:
        """The values of a measurement in the order of the table: the selecting metric, the loss, the rest."""
        return tuple(dict.fromkeys((self.select.name, "loss", *self.measured)))


class LrFinder(Section):
    """The LR range test (Smith 2017, arXiv:1506.01186): rates that are evenly spaced on a log scale."""

    min_lr: Annotated[float, Field(gt=0)] = 1e-7
    """The first learning rate."""
    max_lr: Annotated[float, Field(gt=0)] = 1.0
    """The last learning rate."""
    num_steps: Annotated[int, Field(ge=10)] = 200
    """The steps of the sweep."""
    smoothing: Fraction = 0.9
    """The share of the old value in the moving average of the loss."""
    diverge_factor: Annotated[float, Field(gt=1)] = 4.0
    """The sweep ends where the loss is this many times its lowest value."""
    seeds: tuple[int, ...] | None = None
    """One sweep for each of these seeds. Null: one, with `train.seed`."""
    tag: Tag = "lr_finder"
    """The name of the sweep's folder."""


class Hparams(Section):
    """The grid: `epochs` of every cell, and the axes, each a list of values. The first axis varies slowest."""

    # Any other key is an axis; src/config/validation.py refuses unknown ones.
    model_config = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False)

    epochs: Count | None = None
    """The epochs of every cell. Null: `train.epochs`."""
    tag: Tag = "grid_search"
    """The name of the sweep's folder."""

    @property
    def axes(self) -> dict[str, tuple[Any, ...]]:
        """Axis name -> its values, in the order of the file."""
        return dict(self.model_extra or {})


class Refine(Section):
    """The narrower grid around the best cell of the first one (M8 of the report): factors on its rate and decay."""

    epochs: Count = 8
    """The epochs of every cell."""
    lr_factors: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (0.75, 1.0, 1.25)
    """Factors on the learning rate of the best cell."""
    weight_decay_factors: Annotated[tuple[NonNegative, ...], Field(min_length=1)] = (1.0, 0.5, 0.1)
    """Factors on the weight decay of the best cell."""
    tag: Tag = "grid_refined"
    """The name of the sweep's folder."""


class Variant(Section):
    """A training that differs from the base training in `set`, and what is expected of it, in a sentence.

    `set` maps key paths, or the names of the grid's axes, to values. It may be written without its own key:
    `lower_lr: {train.optimizer.lr: 5e-4}`.
    """

    set: Annotated[dict[str, Any], Field(min_length=1)]
    """What the variant changes: key paths, or names of the grid's axes, with their values."""
    expect: str | None = None
    """What you expect of it, in a sentence."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, content: Any) -> Any:
        if not isinstance(content, dict) or "set" in content:
            return content
        expect = {"expect": content["expect"]} if "expect" in content else {}
        return {"set": {path: value for path, value in content.items() if path != "expect"}, **expect}


class Compare(Section):
    """Variants of the base training by name, each trained in full and compared with it (M7 of the report)."""

    variants: dict[Tag, Variant] = Field(default_factory=dict)
    """The variants of the base training, by name."""
    tag: Tag = "compare"
    """The name of the sweep's folder."""


class Evaluation(Section):
    """What `evaluate` measures: a checkpoint on a split."""

    checkpoint: str | None = None
    """The file with the weights. Null: best.ckpt in `paths.artifacts_dir`."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """The digest of that file. Filled in when the run is planned."""
    split: Literal["val", "test"] = "test"
    """The split that is measured."""


class Config(Section):
    """One complete experiment: these defaults, overridden by the YAML file, overridden by `--set`.

    The rules between the sections are not checked here; src/config/loading.py, which creates configurations, does that.
    """

    project: ProjectFolder = ProjectFolder()
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
    compare: Compare = Compare()
    evaluation: Evaluation = Evaluation()
    paths: Paths = Paths()

    @property
    def own_code(self) -> dict[str, str]:
        """What it names of the user's project, by key path."""
        names = {
            "model.type": self.model.type,
            "dataset.name": self.dataset.name,
            "train.optimizer.name": self.train.optimizer.name,
        }
        return {key: name for key, name in names.items() if is_own(name)}

    @property
    def has_own_data(self) -> bool:
        """Whether its data is what a function of the user's project returns."""
        return is_own(self.dataset.name)

    def to_dict(self) -> dict[str, Any]:
        """Plain values (lists, not tuples), as YAML and JSON hold them."""
        plain: dict[str, Any] = self.model_dump(mode="json")
        return plain
