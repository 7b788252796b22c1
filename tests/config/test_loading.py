from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from relay.config import yaml_file
from relay.errors import ConfigError
from src.config.keys import EVALUATION, TRAINING, content_key
from src.config.loading import load_config, make_config
from src.config.schema import Config
from tests.conftest import ROOT, SMALL

REPORT = ROOT / "configs" / "config.yaml"
REFERENCE = Path(__file__).with_name("reference.yaml")


def refusal(*overrides: str, path: Path = REPORT) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value)


def test_the_reports_config_loads_with_all_its_values() -> None:
    config = load_config(REPORT)
    assert config.dataset.name == "zh-plus/tiny-imagenet"
    assert (config.dataset.split.val, config.dataset.split.test) == (8000, 2000)
    assert config.model.branch_channels == (64, 64, 64)
    assert config.train.optimizer.weight_decay == 1e-5
    assert config.preprocess.text_tokenizer is None
    assert config.model.hidden_sizes is None
    assert list(config.hparams.axes) == ["lr", "batch_size", "weight_decay", "num_modules", "branch_channels"]
    assert config.metrics.classification == ("accuracy",)


def test_the_reports_config_is_unchanged() -> None:
    # As texts, because 1 == 1.0 == True, and because the order of the axes numbers the cells.
    ours, theirs = (yaml_file.dump_yaml(yaml_file.read_mapping(path)) for path in (REPORT, REFERENCE))
    assert ours == theirs
    assert load_config(REPORT) == load_config(REFERENCE)


def test_a_config_survives_being_written_and_read() -> None:
    config = load_config(REPORT, ["hparams.tag=3e-4x", "dataset.revision=1e5"][:1])
    text = yaml_file.dump_yaml(config.to_dict())
    assert make_config(yaml_file.parse_yaml(text, "text"), "text") == config


def test_strings_that_look_like_numbers_are_quoted() -> None:
    content = {"a": "3e-4", "b": "010", "c": 3e-4, "d": "null"}
    assert yaml_file.parse_yaml(yaml_file.dump_yaml(content), "text") == content


def test_one_value_searched_under_two_names_is_refused() -> None:
    said = refusal("hparams.train.optimizer.lr=[1e-3]")
    assert "hparams.train.optimizer.lr: sets the same value as hparams.lr; keep one of them" in said


@pytest.mark.parametrize(
    ("axis", "other"),
    [("train.optimizer=[{name: sgd, lr: 0.5}]", "lr"), ("train.epochs=[1, 3]", "epochs")],
)
def test_an_axis_that_would_undo_another_setting_is_refused(axis: str, other: str) -> None:
    said = refusal(f"hparams.{axis}")
    assert f"hparams.{axis.partition('=')[0]}: sets the same value as hparams.{other}; keep one of them" in said


@pytest.mark.parametrize("section", ["hparams", "refine", "lr_finder"])
@pytest.mark.parametrize("tag", [".hid", "../evil", "a/b", "a\nb", "a\n", "a" * 65, "-f", "", "ä", "a b"])
def test_a_tag_that_is_not_a_folder_name_is_refused(section: str, tag: str) -> None:
    with pytest.raises(ConfigError, match=rf"{section}\.tag: .* is not allowed; it names a folder"):
        make_config({section: {"tag": tag}}, "test")


@pytest.mark.parametrize("tag", ["grid_search", "3e-4x", "lr=1e-3", "v1.2+x", "_", "a" * 64])
def test_a_tag_that_is_a_folder_name_is_taken(tag: str) -> None:
    assert make_config({"hparams": {"tag": tag}}, "test").hparams.tag == tag


@pytest.mark.parametrize(
    ("text", "value"),
    [("3e-4", 3e-4), ("1E5", 1e5), (".5", 0.5), ("-2.5e+3", -2500.0), ("7", 7), ("010", 10), ("'3e-4'", "3e-4")],
)
def test_numbers_are_read_as_numbers(text: str, value: object) -> None:
    """By both loaders: libyaml parses only short texts."""
    for end in ("", "\n#" + 20_000 * " "):
        read = yaml_file.parse_yaml(f"x: {text}{end}", "text")["x"]
        assert read == value
        assert type(read) is type(value)


@pytest.mark.parametrize("depth", [5_000, 200_000])
def test_a_text_that_nests_too_deep_is_refused_and_ends_nothing(depth: int) -> None:
    with pytest.raises(ConfigError, match=r"text: .*not valid YAML"):
        yaml_file.parse_yaml("{a: " * depth, "text")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("&x [*x]", "an alias of itself"),
        ("&x {b: *x}", "an alias of itself"),
        ("!!timestamp 2026-01-01", "the tag !!timestamp is not allowed"),
        ("!!set {x, y}", "the tag !!set is not allowed"),
        ("!!binary aGk=", "the tag !!binary is not allowed"),
        ("!!omap [a: 1]", "the tag !!omap is not allowed"),
        ("!!python/object/apply:os.getcwd []", "the tag !!python/object/apply:os.getcwd is not allowed"),
        ("!!str [1]", "the tag !!str is not allowed"),
        ("!!bool foo", "'foo' is neither true nor false"),
        ("!!float ''", "'' is not a number"),
        ("!!int 0x10", "'0x10' is not a whole number"),
        ("18446744073709551616", "'18446744073709551616' is not a whole number from"),
        ("-9223372036854775809", "is not a whole number from"),
        ("1" + "0" * 5000, "is not a whole number from"),
        ('"\\0"', "contains an invalid character"),
        ('"\\ud800"', "contains an invalid character"),
        ("{1: 2}", "a key must be a string"),
        ("[" * 60 + "]" * 60, "nested deeper than 50 levels"),
        (
            "[&a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"
            + "".join(
                f", &{name} [{', '.join(['*' + before] * 10)}]" for before, name in zip("abcdef", "bcdefg", strict=True)
            )
            + "]",
            "aliases expand to more than 5,000,000 values",
        ),
    ],
)
@pytest.mark.parametrize("filling", ["", "# to be read by the other of the two loaders\n" * 500], ids=["short", "long"])
def test_a_value_that_is_not_allowed_is_refused_with_its_line(value: str, expected: str, filling: str) -> None:
    line = 2 + filling.count("\n")
    with pytest.raises(ConfigError) as caught:
        yaml_file.parse_yaml(f"{filling}train:\n  seed: {value}\n", "some.yaml")
    assert str(caught.value).startswith(f"some.yaml: line {line}, column ")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", [-(2**63), 2**64 - 1])
def test_every_seed_that_is_read_is_taken_by_torch(seed: int) -> None:
    import torch

    torch.Generator().manual_seed(make_config(yaml_file.parse_yaml(f"train: {{seed: {seed}}}", ""), "").train.seed)


def test_a_duplicate_key_is_refused_with_both_lines(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("train:\n  seed: 1\n  epochs: 2\n  seed: 3\n")
    message = refusal(path=path)
    assert "duplicate key 'seed' on lines 2 and 4" in message
    assert str(path) in message


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["train.optimizer.nme=adam"], ["train.optimizer.nme: unknown key", "'name'", "weight_decay"]),
        (["trian.seed=1"], ["trian: unknown key", "'train'"]),
        (["train.batch_size=-1"], ["train.batch_size: -1", "greater than or equal to 1"]),
        (["train.optimizer.lr=fast"], ["train.optimizer.lr: 'fast'", "give a number"]),
        (["train.epochs=1.5"], ["train.epochs: 1.5", "whole number"]),
        (["train.optimizer.lr=.nan"], ["train.optimizer.lr"]),
        (["model.rnn=lstm"], ["model.rnn: 'lstm'", "recurrent"]),
        (["preprocess.text_tokenizer=bert"], ["preprocess.text_tokenizer: 'bert'", "text"]),
        (["model.attention=true"], ["model.attention: true"]),
        (["metrics.regression=[mse]"], ["metrics.regression"]),
        (["model.activation=swish"], ["model.activation: 'swish'", "'relu', 'gelu' or 'tanh'"]),
        (["train.scheduler.name=poly"], ["'none', 'step', 'cosine' or 'onecycle'"]),
        (["train.optimizer.name=lion"], ["'lion' is not allowed", "sgd, adam, adamw, rmsprop, or the path of a class"]),
        (
            ["dataset.split.val=0"],
            ["1 problem\n", "dataset.split.val: 0 is not allowed; give a number of images, a share"],
        ),
        (["dataset.split.val=[1]"], ["1 problem\n", "dataset.split.val: [1] is not", "such as 0.1"]),
        (["dataset.split.test=-3"], ["1 problem\n", "dataset.split.test: -3", "a number of images, 0 for none,"]),
        (["dataset.split.test=1.5"], ["1 problem", "dataset.split.test: 1.5", "or the name of a split"]),
        (["model.input_shape=[3, x, 4]"], ["1 problem", "model.input_shape[1]: 'x'", "whole number"]),
        (["model.input_shape=64"], ["1 problem", "model.input_shape: 64", "or auto"]),
        (["model.num_classes=1"], ["1 problem", "model.num_classes: 1", "or auto"]),
        (["preprocess.normalize={mean: [x]}"], ["1 problem", "preprocess.normalize.mean[0]: 'x'", "number"]),
        (["preprocess.normalize=imagenet"], ["1 problem", "preprocess.normalize: 'imagenet'", "auto, or null"]),
        (["model.options={width: 3}"], ["model.options", "inception_multibranch"]),
        (["dataset.split.val=train"], ["dataset.split.val: 'train' is also dataset.split.train", "valid=null to take"]),
        (["dataset.split.test=valid"], ["'valid' would be test as a whole", "dataset.split.val=8000 is drawn from it"]),
        (
            ["dataset.split.val=valid"],
            ["'valid' would be val as a whole", "valid=null to draw test from 'train'"],
        ),
        (["dataset.split.val=a", "dataset.split.test=a"], ["dataset.split.test: 'a' is also dataset.split.val"]),
        (["dataset.split.valid=train"], ["dataset.split.valid: 'train' is also", "or set dataset.split.valid=null"]),
        (["preprocess.resize=[32,32]"], ["model.input_shape", "augment.random_crop.size: 64"]),
        (["preprocess.mode=L"], ["preprocess.normalize.mean: [0.485, 0.456, 0.406]", "which has 1;", "normalize=auto"]),
        (["preprocess.mode=L"], ["color_jitter.hue: 0.02 is not for preprocess.mode L; set it to 0", "[1, 64, 64]"]),
        (["preprocess.mode=RGBA"], ["color_jitter.brightness: 0.1 is not for preprocess.mode RGBA", "which has 4;"]),
        (["preprocess.mode=CMYK"], ["preprocess.mode: 'CMYK'", "'RGB', 'L' or 'RGBA'"]),
        (["preprocess.normalize.std=[0.2]"], ["preprocess.normalize.std: [0.2] is not one value for each", "has 3;"]),
        (["dataset.classes=20"], ["model.num_classes: 200 does not fit dataset.classes 20"]),
        (["model.num_modules=16"], ["model.num_modules: 16"]),
        (["hparams.lrr=[1]"], ["hparams.lrr: unknown axis", "'lr'"]),
        (["hparams.lr=3"], ["hparams.lr: 3 is not a list", "[3]"]),
        (["hparams.lr=[1,1]"], ["contains a value twice"]),
        (["lr_finder.min_lr=2"], ["lr_finder.min_lr"]),
        (["train=adam"], ["train: 'adam'", "section"]),
        (["nonsense"], ["key.path=value"]),
    ],
)
def test_a_bad_value_is_refused_with_key_value_and_what_is_allowed(overrides: list[str], expected: list[str]) -> None:
    message = refusal(*overrides)
    for part in expected:
        assert part in message


def test_all_problems_come_at_once() -> None:
    message = refusal("train.batch_size=0", "model.rnn=gru", "trian.x=1", "dataset.root=3")
    assert "4 problems" in message
    assert len(message.splitlines()) == 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- a\n- b\n", "must be a mapping"),
        ("train: [1\n", "line 2"),
        ("a: b: c\n", "not valid YAML"),
        ("\ttrain: 1\n", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    message = refusal(path=path)
    assert expected in message
    assert str(path) in message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "no such file" in refusal(path=tmp_path / "none.yaml")
    assert "cannot be read" in refusal(path=tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in refusal(path=tmp_path / "binary.yaml")


def test_empty_sections_and_an_empty_file_are_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("train:\nmodel:\n")
    assert load_config(path) == Config()


def test_overrides_reach_into_null_sections() -> None:
    config = load_config(REPORT, ["augment.random_crop=null", "augment.color_jitter={hue: 0.1}", "train.max_steps=5"])
    assert config.augment.random_crop is None
    assert config.augment.color_jitter is not None
    assert config.augment.color_jitter.hue == 0.1
    assert config.train.max_steps == 5


def test_configs_are_frozen() -> None:
    from pydantic import ValidationError

    config = Config()
    with pytest.raises(ValidationError):
        config.train.seed = 1  # type: ignore[misc]


def test_the_key_follows_content_alone(small: Callable[..., Config]) -> None:
    key = content_key(small(), TRAINING)
    assert (
        content_key(small(train__device="auto", dataset__root="/elsewhere", checkpoint__every_steps=3), TRAINING) == key
    )
    assert content_key(small(train__overfit_epochs=7), TRAINING) == key
    assert content_key(small(train__seed=1), TRAINING) != key
    assert content_key(small(model__dropout=0.1), TRAINING) != key
    assert content_key(small(), EVALUATION) != key


def test_the_demo_config_is_valid() -> None:
    assert load_config(ROOT / "configs" / "demo.yaml").dataset.name == "synthetic"


def test_the_tests_experiment_is_not_changed_by_overrides(small: Callable[..., Config]) -> None:
    small(train__seed=9)
    assert "seed" not in SMALL["train"]
