from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pyarrow as pa
import pytest
import torch
from matplotlib.figure import Figure

from src import checks
from src.checking import figures as check_figures
from src.checking import sanity
from src.checking.sanity import measure
from src.checking.text import lines_of
from src.config.schema import Config
from src.data import loader, synthetic
from src.data.found import with_found
from tests.data.images import rewrite, rows_of

QUESTIONS = [*(f"D{number}" for number in range(1, 12)), "M0", "M1", "M2"]


def test_every_question_is_answered_and_the_contract_is_kept(small: Callable[..., Config]) -> None:
    report, examples = measure(small(), 3)
    keys = re.findall(r"^    ([a-z_]+(?:, [a-z_]+)*)   ", str(sanity.__doc__), re.M)
    documented = {name for line in keys for name in line.split(", ")}
    assert documented == {*report, "figures"}
    text = list(lines_of(report))
    assert list(dict.fromkeys(line[:4].strip() for line in text if line[0] != " ")) == QUESTIONS
    assert "50% val and 50% test, stratified by class, seed 42" in " ".join(text)
    assert len(report["class_table"]) == 4
    assert report["class_table"][3] == {"label": 3, "name": "class_003", "train": 24, "val": 5, "test": 5}
    assert all(verdict["holds"] for verdict in report["verdicts"])
    assert [len(each.augmented) for each in examples] == [2, 2, 2]
    assert examples[0].before.shape == (16, 16, 3)
    json.dumps(report)


def test_uneven_classes_and_carved_parts_are_described_as_they_are(small: Callable[..., Config]) -> None:
    report, _ = measure(small(dataset__split={"valid": None, "val": 9, "test": 0.1, "seed": 7}), 1)
    assert report["splits"] == {"train": 77, "val": 9, "test": 10}
    split = report["split"]
    assert (split["from"], split["whole"], split["stratified"], split["even"]) == ("train", {}, True, False)
    assert split["ratio"] == {"val": 9 / 96, "test": 10 / 96}
    assert split["method"].endswith("the next of them, by its share, go to val, and the others to train")
    assert {v["name"]: v["what"] for v in report["verdicts"]}[
        "stratified"
    ] == "val and test have examples of every class by its share"
    assert all(verdict["holds"] for verdict in report["verdicts"])
    assert any(line.startswith("D3   drawn from the split 'train': 9% val and 10% test") for line in lines_of(report))


def test_named_splits_are_described_as_they_are(small: Callable[..., Config]) -> None:
    report, _ = measure(small(dataset__split={"val": "valid", "test": 0}), 1)
    assert report["splits"] == {"train": 96, "val": 40, "test": 0}
    split = report["split"]
    assert (split["from"], split["whole"], split["ratio"]) == (None, {"train": "train", "val": "valid"}, {})
    assert all(verdict["holds"] for verdict in report["verdicts"])
    assert "D3   val has examples of the split 'valid'" in lines_of(report)


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_the_checks_show_images_of_every_mode(small: Callable[..., Config], tmp_path: Path, mode: str) -> None:
    changes = {"preprocess__normalize": "auto", "model__input_shape": "auto", "augment__color_jitter": None}
    config = with_found(small(preprocess__mode=mode, **changes))
    report, examples = measure(config, 2)
    assert report["input_shape"][0] == report["batch"]["images"][1] == len(mode)
    assert report["preprocessing"][0]["operation"] == mode
    assert all(verdict["holds"] for verdict in report["verdicts"])
    assert examples[0].before.shape == (16, 16, len(mode))
    path = check_figures.draw_examples(examples, ["a", "b"], tmp_path / "examples.png")
    drawn = plt.imread(path)
    # The lines of the figure are of a bluish grey.
    assert mode == "RGBA" or np.abs(drawn[..., 0] - drawn[..., 2]).max() < 0.2, "grey is drawn as grey"


def test_weights_that_are_not_trained_need_no_gradient(small: Callable[..., Config], tmp_path: Path) -> None:
    (tmp_path / "frozen_nets.py").write_text(
        "from torch import nn\n\n\ndef net(classes, shape, unused=False):\n"
        "    first, other = nn.Conv2d(shape[0], 4, 16), nn.Linear(4, classes)\n"
        "    first.requires_grad_(False)\n    made = nn.Sequential(first, nn.Flatten(), other)\n"
        "    if unused:\n        other.register_parameter('more', nn.Parameter(other.bias.detach().clone()))\n"
        "    return made\n"
    )
    own = {"model__type": "frozen_nets:net", "project__path": str(tmp_path), "hparams": {"lr": [0.1, 0.2]}}
    report, _ = measure(small(**own), 0)
    assert all(verdict["holds"] for verdict in report["verdicts"])
    batch = report["batch"]
    assert batch["weights_without_gradient"] == []
    assert (batch["parameters"], batch["all_parameters"]) == (20, 20 + 3 * 16 * 16 * 4 + 4)
    assert any(line.startswith("M1   parameters: 20 are trained, of 3,096") for line in lines_of(report))
    assert [(option["option"], option["value"]) for option in report["options"]] == [("options.unused", False)]
    report, _ = measure(small(**own, model__options={"unused": True}), 0)
    assert report["batch"]["weights_without_gradient"] == ["2.more"]
    assert [verdict["name"] for verdict in report["verdicts"] if not verdict["holds"]] == ["gradients"]


def test_examples_without_augmentation_are_shown_once(small: Callable[..., Config], tmp_path: Path) -> None:
    report, examples = measure(small(augment={}), 2)
    assert [each.augmented for each in examples] == [[], []]
    assert check_figures.draw_examples(examples, ["a", "b"], tmp_path / "examples.png")
    assert any(line.startswith("D10  examples: ") for line in lines_of(report))


def test_preprocessing_that_differs_between_the_splits_is_found(
    small: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if the training alone forgot to normalise.
    monkeypatch.setattr(loader.TrainLoader, "prepare", lambda self, raw, epoch, batch: raw.float() / 255)
    report, _ = measure(small(), 1)
    assert report["preprocessing_equal"]["equal"] is False
    assert [v["what"] for v in report["verdicts"] if not v["holds"]] == ["train, val and test are preprocessed equally"]
    assert any(line.startswith("D7   train, val and test: NOT EQUAL") for line in lines_of(report))


def test_images_in_two_splits_are_counted(small: Callable[..., Config], tmp_path: Path) -> None:
    folder = tmp_path / "images"
    synthetic.write(folder, classes=4, train_per_class=24, valid_per_class=10, seed=3)
    train = rows_of(folder, "train")

    def change(table: pa.Table) -> pa.Table:
        # Of class 0, three images that are trained on, and one image twice.
        rows = table.to_pylist()
        return pa.Table.from_pylist([*train[:3], *rows[3:9], rows[8], *rows[10:]], schema=table.schema)

    rewrite(folder, "valid", change)
    named = {"dataset__name": str(folder), "dataset__allowed_overlap": 0.1}
    # The two copies are in val and in test with one of these seeds.
    found = [measure(small(**named, dataset__split__seed=seed), 1)[0] for seed in range(4)]
    assert all(each["overlaps"]["val"]["train"] + each["overlaps"]["test"]["train"] == 3 for each in found)
    assert {each["overlaps"]["test"]["val"] for each in found} == {0, 1}
    counts = found[0]["overlaps"]["test"]
    line = f"D5   images of test that are also in another split, pixel for pixel: {counts['train']} in train, "
    assert line + f"{counts['val']} in val" in lines_of(found[0])


def test_the_command_writes_the_same_bytes_again(small_file: Path, tmp_path: Path) -> None:
    contents = []
    for _ in range(2):
        checks.main(config=str(small_file))
        torch.rand(3)
        contents.append({path.name: path.read_bytes() for path in sorted(tmp_path.glob("artifacts/checks/*/*"))})
    assert list(contents[0]) == ["checks.json", "class_distribution.png", "examples.png"]
    assert contents[0] == contents[1]
    figures = json.loads(contents[0]["checks.json"])["figures"]
    assert figures == {"classes": "class_distribution.png", "examples": "examples.png"}


@pytest.mark.parametrize("name", ["Ba$$in", "$\\frac{$", "猫"])
def test_classes_may_have_any_name(
    small_file: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "images"
    synthetic.write(folder, classes=4, train_per_class=24, valid_per_class=10, seed=3)
    for split in ("train", "valid"):
        rewrite(folder, split, lambda table: _with_name(table, name))
    checks.main(config=str(small_file), set_=[f"dataset.name={folder}"])
    said = capsys.readouterr()
    assert "warning" not in said.err
    assert name in said.out
    assert len(list(tmp_path.glob("artifacts/checks/*/*.png"))) == 2


def _with_name(table: pa.Table, name: str) -> pa.Table:
    metadata = json.loads(table.schema.metadata[b"huggingface"])
    metadata["info"]["features"]["label"]["names"][1] = name
    return table.replace_schema_metadata({"huggingface": json.dumps(metadata)})


def test_checks_are_written_without_their_figures(
    small_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(figure: Figure, path: Path) -> Path:
        raise ValueError("Unknown symbol")

    monkeypatch.setattr(check_figures, "save_figure", fail)
    checks.main(config=str(small_file))
    assert [path.name for path in tmp_path.glob("artifacts/checks/*/*")] == ["checks.json"]
    assert capsys.readouterr().err.count("cannot be drawn") == 2
