"""Data from a function of the user's project: what is taken, what is refused, and when it is called again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from relay.errors import ConfigError, DataError
from src.config.loading import load_config, make_config
from src.config.schema import Config
from src.data.cache import read_arrays
from src.data.dataset import load, prepare
from src.data.found import with_found
from src.requests import train_request
from tests.own_code.test_runs import execute, new_run

LOADER = """
import numpy as np
CALLS = {calls!r}


def load(split):
    with open(CALLS, "a") as file:
        file.write(split + " ")
    n = {{"train": 12, "val": 6, "test": 3}}[split]
    x, y = np.arange(n * 4.0).reshape(n, 4), np.arange(n) % 3
    {body}
    return x, y
"""


def config_of(project: Path, body: str = "pass", /, **given: Any) -> Config:
    (project / "my_data.py").write_text(LOADER.format(calls=str(project.parent / "calls"), body=body))
    base: dict[str, Any] = {
        "project.path": str(project),
        "dataset.name": "my_data:load",
        "dataset.root": str(project.parent / "data"),
        "dataset.split": {"val": "val", "test": "test"},
        "dataset.allowed_overlap": 1.0,
        "model.type": "nets:Mlp",
        **{f"paths.{name}_dir": str(project.parent / name) for name in ("runs", "artifacts", "logs")},
    }
    return make_config({}, "test", {**base, **{name.replace("__", "."): value for name, value in given.items()}})


def calls(project: Path) -> list[str]:
    return (project.parent / "calls").read_text().split()


def test_a_table_is_kept_as_it_is(project: Path) -> None:
    data = load(with_found(config_of(project)))
    assert data.train.images.dtype == np.float32
    assert np.array_equal(data.train.images, np.arange(48.0).reshape(12, 4))
    assert [len(part) for part in (data.train, data.val, data.test)] == [12, 6, 3]
    assert data.class_names == ("0", "1", "2")
    assert data.facts["val"] == {"count": 6, "modes": {"float32": 6}, "sizes": {"4": 6}, "changes": {}}
    assert calls(project) == ["train", "val", "test"]


def test_what_is_found_is_written_into_the_configuration(project: Path) -> None:
    found = with_found(config_of(project))
    assert (found.model.classes, found.model.shape, found.preprocess.normalize) == (3, (4,), None)
    auto = with_found(config_of(project, preprocess__normalize="auto")).preprocess.statistics
    assert auto is not None
    rows = np.arange(48.0).reshape(12, 4)
    assert np.allclose(auto.mean, rows.mean(0))
    assert np.allclose(auto.std, rows.std(0))


def test_val_and_test_are_drawn_from_the_only_split(project: Path) -> None:
    split = {"valid": None, "val": 3, "test": 3}
    data = load(with_found(config_of(project, dataset__split=split, preprocess__normalize="auto")))
    assert calls(project) == ["train"]
    parts = [set(part.indices.tolist()) for part in (data.train, data.val, data.test)]
    assert [len(part) for part in parts] == [6, 3, 3]
    assert set.union(*parts) == set(range(12))


@pytest.mark.parametrize(
    ("body", "shape", "mode"),
    [
        ("x = (np.arange(n * 48) % 251).astype('uint8').reshape(n, 3, 4, 4)", (3, 4, 4), "RGB"),
        ("x = (np.arange(n * 75) % 251).astype('uint8').reshape(n, 5, 5, 3)", (3, 5, 5), "RGB"),
        ("x = (np.arange(n * 16) % 251).astype('uint8').reshape(n, 4, 4)", (1, 4, 4), "L"),
        ("x = (np.arange(n * 16) % 251).astype('uint8').reshape(n, 1, 4, 4)", (1, 4, 4), "L"),
    ],
)
def test_images_are_images(project: Path, body: str, shape: tuple[int, ...], mode: str) -> None:
    preprocess = {"resize": list(shape[1:]), "mode": mode, "normalize": None}
    config = with_found(config_of(project, body, preprocess=preprocess, model__type="nets:plain"))
    assert config.model.shape == shape
    images = read_arrays(prepare(config))["train"].images
    assert images.dtype == np.uint8
    assert images.shape == (12, *shape)
    first = (np.arange(np.prod(shape)) % 251).astype("uint8")
    expected = first.reshape(5, 5, 3).transpose(2, 0, 1) if "5, 5, 3" in body else first.reshape(shape)
    assert np.array_equal(images[0], expected)


@pytest.mark.parametrize(
    ("body", "dtype"),
    [("x = x.astype('float64')", "float32"), ("x = x.astype('int32')", "int64"), ("x = x > 3", "int64")],
)
def test_types_become_those_of_networks(project: Path, body: str, dtype: str) -> None:
    assert load(with_found(config_of(project, body))).train.images.dtype == dtype


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ("y = np.array(['cat', 'dog'])[y % 2]", ("cat", "dog")),
        ("y = y * 10 + 5", ("5", "15", "25")),
        ("y = y.astype(float)", ("0", "1", "2")),
        ("y = y > 0", ("False", "True")),
        ("import torch; x, y = torch.tensor(x, requires_grad=True), torch.tensor(y)", ("0", "1", "2")),
        ("y = y.tolist()", ("0", "1", "2")),
    ],
)
def test_labels_are_numbered_in_order(project: Path, body: str, names: tuple[str, ...]) -> None:
    data = load(with_found(config_of(project, body)))
    assert data.class_names == names
    assert set(data.train.labels.tolist()) == set(range(len(names)))


WRONG: list[tuple[str, str]] = [
    ("raise OSError('no file')", r"my_data:load\('train'\) failed: OSError: no file \(my_data.py, line 11\)"),
    ("return x", "gives ndarray; it must return two arrays"),
    ("y = y[:5]", r"x is float64 \(12, 4\) and y int64 \(5,\)"),
    ("y = np.eye(3)[y]", r"y float64 \(12, 3\); y must be \(N,\)"),
    ("x = x[:, 0]", r"x is float64 \(12,\); it must have a row for each label"),
    ("x[5, 2] = np.nan", "1 of 12 rows of x have values that are not finite as float32, the first is row 5"),
    ("x[x > 40] = np.inf", "rows of x have values that are not finite"),
    ("y = y + 0.5", "y is float64 .*; labels must be whole numbers or texts"),
    ("y = y + np.nan", "labels must be whole numbers or texts"),
    ("x, y = x[:0], y[:0]", "gives no inputs"),
    ("y = y * 0", "too few classes: 1"),
    ("y = y + (split == 'val')", r"my_data:load\('val'\): row 2 has the label .*3.*, which no row of 'train' has"),
    ("x = x if split == 'train' else x[:, :3]", r"gives float64 \(6, 3\) for 'val' and float64 \(12, 4\) for 'train'"),
    ("x = x.astype('uint8')", "uint8 means images"),
    ("x = [[1, 2], [3]] * 6", "x is no array"),
    ("x = x.astype(str)", "give uint8 images, floating-point or whole numbers"),
    ("import sys; sys.exit(3)", "failed: SystemExit"),
    ("import os; os.kill(os.getpid(), 9)", "was ended by SIGKILL"),
]


@pytest.mark.parametrize(("body", "message"), WRONG)
def test_what_cannot_be_used_is_refused(project: Path, body: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        with_found(config_of(project, body))
    assert not list((project.parent / "data").glob("decoded/[!.]*"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dataset__name": "my_data:lod"}, "my_data has no `lod`; it has load"),
        ({"dataset__name": "no_data:load"}, "there is no module no_data in the project"),
        ({"dataset__name": "my_data:CALLS"}, "my_data:CALLS is no function, but str"),
        ({"dataset__split": {"val": "dev", "test": 0}}, r"load\('dev'\) failed: KeyError: 'dev'"),
        (
            {"model__type": "residual_cnn"},
            "model.type: residual_cnn needs images, and my_data:load gives float32 inputs",
        ),
        ({"augment__random_flip": True}, "augment.random_flip: is for images"),
        ({"preprocess__resize": [8, 8]}, "preprocess.resize: is for images"),
        ({"preprocess__mode": "L"}, "preprocess.mode: is for images"),
        ({"metrics__test_time_flip": True}, "metrics.test_time_flip: is for images"),
        ({"train__cutmix": 0.3}, "train.cutmix: is for images"),
        ({"model__input_shape": [3, 2]}, r"model.input_shape: \[3, 2\], but my_data:load gives \[4\]; set it to auto"),
        (
            {"preprocess__normalize": {"mean": [1.0], "std": [1.0]}},
            r"normalize.mean: 1 values, but .* have 4",
        ),
        ({"model__num_classes": 7}, "model.num_classes: 7, but my_data:load has 3 classes"),
        ({"dataset__class_names": ["a", "b"]}, "dataset.class_names: 2 names, but my_data:load has 3 classes"),
    ],
)
def test_what_does_not_fit_it_is_refused(project: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises((DataError, ConfigError), match=message):
        with_found(config_of(project, **given))


def test_whole_numbers_are_neither_mixed_nor_normalised(project: Path) -> None:
    with pytest.raises(DataError, match=r"train.mixup: .*whole numbers.*\n.*preprocess.normalize"):
        with_found(config_of(project, "x = x.astype(int)", train__mixup=0.2, preprocess__normalize="auto"))


def test_it_is_called_again_when_its_code_or_its_files_change(project: Path) -> None:
    (project / "tables").mkdir()
    (project / "tables" / "a.txt").write_text("1")
    config = config_of(project, project__links=["tables"])
    first = prepare(config)
    assert prepare(config) == first
    assert len(calls(project)) == 3
    (project / "tables" / "a.txt").write_text("12")
    second = prepare(config)
    assert second != first
    (project / "helper.py").write_text("")
    assert prepare(config) not in (first, second)
    assert len(calls(project)) == 9
    # It may read what is not known.
    prepare(config, look_closer=True)
    assert len(calls(project)) == 12


def test_a_relative_path_starts_at_the_project(project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (project / "numbers.csv").write_text("\n".join(f"{n},{n % 2}" for n in range(10)))
    (project / "my_data.py").write_text(
        "import numpy as np\ndef load(split):\n    t = np.loadtxt('numbers.csv', delimiter=',')\n"
        "    return t[:, :1], t[:, 1].astype(int)\n"
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    (project / "relay.yaml").write_text(
        "dataset: {name: my_data:load, split: {valid: null, val: 2, test: 2}}\nmodel: {type: nets:Mlp}\n"
    )
    found = with_found(load_config(project / "relay.yaml"))
    assert found.model.shape == (1,)
    assert os.listdir(elsewhere) == ["data"]  # noqa: PTH208


def test_a_run_reads_its_data_with_the_frozen_code(project: Path) -> None:
    run, other = (new_run(config_of(project, train__epochs=1, train__batch_size=4)) for _ in range(2))
    (project / "my_data.py").write_text("raise RuntimeError('edited')\n")
    assert execute(run) == "done"
    # Even where the inputs have to be read again.
    for folder in (project.parent / "data" / "decoded").iterdir():
        if folder.is_dir():
            (folder / "meta.json").unlink()
    assert execute(other) == "done"
    assert calls(project) == ["train", "val", "test"] * 2


def test_tokens_reach_the_network_as_whole_numbers(project: Path) -> None:
    config = with_found(config_of(project, dataset__name="tables:tokens", model__type="nets:Words"))
    inputs, labels = load(config).train.take(torch.arange(3))
    assert (inputs.dtype, labels.dtype) == (torch.int64, torch.int64)
    assert execute(new_run(config_of(project, dataset__name="tables:tokens", model__type="nets:Words"))) == "done"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("x[3, 1] = 1e300", "1 of 12 rows of x have values that are not finite as float32, the first is row 3"),
        ("x = x.astype('uint64') + 2**63", "x has numbers above 9223372036854775807"),
        ("x = np.ma.masked_array(x, x == 3)", "x has masked values"),
    ],
)
def test_values_that_would_change_are_refused(project: Path, body: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        with_found(config_of(project, body))


def test_files_that_are_read_are_frozen_or_linked(project: Path) -> None:
    (project / "data").mkdir()
    (project / "data" / "t.csv").write_text("1")
    config = config_of(project, "x = x * float(open('data/t.csv').read())", dataset__root=str(project / "data"))
    first = load(with_found(config)).train.images[1, 1]
    (project / "data" / "t.csv").write_text("2")
    assert load(with_found(config)).train.images[1, 1] == 2 * first
    (project / "data" / "big.npy").write_bytes(b"\0\0")
    with pytest.raises(DataError, match=r"'data/big.npy'.*; it lies in the project, but is not frozen .*project.links"):
        with_found(config_of(project, "open('data/big.npy')", dataset__root=str(project / "data")))


def test_what_auto_stands_for_is_looked_at_again_with_the_data(project: Path, tmp_path: Path) -> None:
    (tmp_path / "scale").write_text("1")
    body = f"x = x * float(open({str(tmp_path / 'scale')!r}).read())"
    request = train_request(config_of(project, body, preprocess__normalize="auto"))
    request.prepare(False)
    (tmp_path / "scale").write_text("100")
    with pytest.raises(DataError, match="give the same command once more"):
        train_request(config_of(project, body, preprocess__normalize="auto")).prepare(True)
    train_request(config_of(project, body, preprocess__normalize="auto")).prepare(True)
