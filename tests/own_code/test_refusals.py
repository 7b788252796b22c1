"""What is wrong is refused by the command, in one message and with exit code 2, and nothing is made."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hpc.commands.submit import command_of
from hpc.works import WORKS
from relay.cli import make_app, run_app
from relay.config import yaml_file
from tests.conftest import ROOT

PROFILE = str(ROOT / "configs" / "clusters" / "local.yaml")
SMALL: dict[str, Any] = {
    "dataset": {"name": "tables:load", "split": {"val": "val", "test": "test"}},
    "model": {"type": "nets:Mlp"},
    "train": {"epochs": 1, "batch_size": 16},
    "hparams": {"lr": [0.01, 0.02]},
}
# Of images in parquet files with the columns img and fine_label, and the splits train and test.
TABLE = {
    "dataset.name": "TABLE",
    "dataset.split": {"valid": None, "val": 4, "test": "test"},
    "dataset.columns": {"image": "img", "label": "fine_label"},
    "preprocess": {"resize": [8, 8]},
    "model.type": "nets:plain",
}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "network's module": ({"model.type": "nts:Mlp"}, "there is no module nts"),
    "network's name": ({"model.type": "nets:Mlpp"}, "nets has no `Mlpp`"),
    "network's shape": ({"model.type": "nets:plain"}, "cannot take inputs of shape [5]"),
    "option": ({"model.options": {"hiden": [3]}}, "model.options.hiden: unknown; did you mean hidden"),
    "option's type": ({"model.options": {"drop": "much"}}, "model.options.drop: 'much' is not a number"),
    "option beside type": ({"model.width": 3}, "the options of nets:Mlp stand below model.options"),
    "axis": ({"hparams.optimizr": ["adam"]}, "model.options.optimizr: unknown"),
    "type": ({"model.type": "resnet18"}, "model.type: 'resnet18' is not allowed"),
    "torchvision's name": ({**TABLE, "model.type": "torchvision/resnet"}, "has no classification network 'resnet'"),
    "import": ({"model.type": "needs:net"}, "it imports no_such_package"),
    "name of ours": ({"model.type": "jobs.nets:Net"}, "in Relay's process, jobs is its own code"),
    "classes": ({"model.num_classes": 7}, "model.num_classes: 7, but tables:load has 3 classes"),
    "input's shape": ({"model.input_shape": [4]}, "model.input_shape: [4], but tables:load gives [5]"),
    "images wanted": ({"model.type": "residual_cnn"}, "model.type: residual_cnn needs images"),
    "augmentation": ({"augment.random_flip": True}, "augment.random_flip: is for images"),
    "function": ({"dataset.name": "tables:lod"}, "tables has no `lod`"),
    "split": ({"dataset.split.val": "dev"}, "tables:load('dev') failed: KeyError: 'dev'"),
    "size of a split": ({"dataset.split": {"valid": None, "val": 90, "test": 0}}, "dataset.split.val"),
    "closure": ({"train.optimizer": {"name": "torch.optim.LBFGS", "weight_decay": 0.0}}, "wants a closure"),
    "optimizer": ({"train.optimizer.name": "torch.optim.Adm"}, "torch.optim has no Adm; did you mean"),
    "optimizer's option": ({"train.optimizer.options": {"beta": 1}}, "adam has no such option; did you mean 'betas'"),
    "not exact": ({"train.optimizer.name": "opts:Forgetful"}, "does not resume exactly"),
    "link": ({"project.links": ["weights"]}, "project.links: weights:"),
    "image column": ({**TABLE, "dataset.columns": {"label": "fine_label"}}, "dataset.columns.image=img"),
    "label column": ({**TABLE, "dataset.columns": {"image": "img", "label": "lable"}}, "dataset.columns.label"),
    "split of a folder": ({**TABLE, "dataset.split": {"val": "dev", "test": "test"}}, "there is no split 'dev'"),
    "labels out of range": ({**TABLE, "dataset.name": "TABLE of others"}, "has the label 9"),
    "names of classes": ({**TABLE, "dataset.class_names": ["a", "b"]}, "dataset.class_names: 2 names"),
    "channels": ({**TABLE, "preprocess.mode": "L"}, "preprocess.normalize.mean"),
    "last batch": ({"train.batch_size": 89}, "leaves one of the 90 training"),
    "folder": ({"dataset.name": "./no_images"}, "there is no folder"),
    "data of torchvision": ({**TABLE, "dataset.name": "torchvision/MNST"}, "torchvision.datasets has no MNST"),
}


def write_table(folder: Path, test_label: int) -> None:
    rng = np.random.default_rng(0)
    folder.mkdir()
    for split, labels in (("train", [0, 1, 2, 0, 1, 2] * 3), ("test", [0, 1, test_label])):
        files = []
        for _ in labels:
            file = io.BytesIO()
            Image.fromarray(rng.integers(256, size=(8, 8, 3), dtype=np.uint8)).save(file, "PNG")
            files.append({"bytes": file.getvalue(), "path": None})
        pq.write_table(pa.table({"img": files, "fine_label": labels}), folder / f"{split}-00000-of-00001.parquet")


@pytest.mark.parametrize("kind", [*WRONG])
def test_it_is_refused(
    kind: str, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, message = WRONG[kind]
    (project / "needs.py").write_text("import no_such_package\n")
    monkeypatch.chdir(project)
    (project / "relay.yaml").write_text(yaml_file.dump_yaml(SMALL))
    given = dict(changes)
    if str(given.get("dataset.name", "")).startswith("TABLE"):
        write_table(project / "table", 9 if "others" in given["dataset.name"] else 2)
        given["dataset.name"] = "./table"
    words = [word for path, value in given.items() for word in ("--set", f"{path}={json.dumps(value)}")]
    app = make_app()
    app.command()(command_of(WORKS["grid"]))
    monkeypatch.setattr("sys.argv", ["grid", "--config", "relay.yaml", "--cluster", PROFILE, *words])
    with pytest.raises(SystemExit) as ended:
        run_app(app)
    said = capsys.readouterr().err
    assert ended.value.code == 2, said
    assert message in said
    assert len(re.findall(r"(?m)^error: ", said)) == 1
    assert "Traceback" not in said
    assert not any((project / name).exists() for name in ("runs", "artifacts", "logs"))
