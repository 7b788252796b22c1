"""The report of experiments on data and networks of a user's own: nothing in it is about other data."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from filelock import FileLock

from src.artifacts import checks_folder
from src.reporting.finding import with_known
from src.reporting.texts import LANGUAGES, ReportTexts
from tests.fork_server import fork_python
from tests.reporting.conftest import Project
from tests.reporting.test_report import between

DATA = """
import numpy as np


def rows(split):
    random = np.random.default_rng(["train", "val", "test"].index(split))
    labels = np.repeat(np.arange(3), [30, 20, 10])
    # Of very different sizes, as columns of a table are.
    return ((labels[:, None] + random.normal(size=(60, 5))) * [1, 10, 100, 1000, 1]).astype("float32"), labels


def digits(split):
    random = np.random.default_rng(3)
    labels = np.arange(150) % 10
    return (labels[:, None, None] * 25 + random.integers(0, 30, (150, 8, 8))).astype("uint8"), labels
"""
NETS = """
from torch import nn


def mlp(classes, shape, width: int = 7):
    return nn.Sequential(nn.Linear(shape[0], width), nn.ReLU(), nn.Linear(width, classes))


def frozen(classes, shape, width: int = 4):
    first = nn.Conv2d(shape[0], width, 3)
    first.weight.requires_grad_(False)
    return nn.Sequential(first, nn.ReLU(), nn.Flatten(), nn.Linear(width * 36, classes))
"""
SHARED = """
lr_finder: {num_steps: 10}
train: {epochs: 2, batch_size: 16, device: cpu, overfit_epochs: 2, optimizer: {name: sgd, lr: 0.01}}
hparams: {epochs: 1, lr: [0.001, 0.01], width: [4, 6]}
"""
EXPERIMENTS = {
    "table": """
dataset: {name: my_data:rows, split: {val: val, test: test}}
preprocess: {normalize: auto}
model: {type: nets:mlp}
""",
    "digits": """
dataset: {name: my_data:digits, split: {valid: null, val: 0.2, test: 0.2}, allowed_overlap: 1}
preprocess: {resize: [8, 8], mode: L, normalize: auto}
model: {type: nets:frozen}
""",
}


class Own(Project):
    """An experiment on a user's data."""

    @property
    def checks(self) -> Path:
        return checks_folder(with_known(self.config()), str(self.file)) / "checks.json"


def made(shared_folder: Path, name: str) -> Own:
    own = Own(shared_folder / f"own_{name}")
    with FileLock(shared_folder / f"own_{name}.lock"):
        if not (own.folder / "artifacts" / "complete").exists():
            make(own, EXPERIMENTS[name])
            (own.folder / "artifacts" / "complete").touch()
    return own


def make(own: Own, experiment: str) -> None:
    own.folder.mkdir()
    (own.folder / "my_data.py").write_text(DATA)
    (own.folder / "nets.py").write_text(NETS)
    places = {f"{name}_dir": str(own.folder / name) for name in ("runs", "artifacts", "logs")}
    paths = f"paths: {{{', '.join(f'{name}: {place}' for name, place in places.items())}}}\n"
    content = experiment.replace("dataset: {", f"dataset: {{root: {own.folder / 'data'}, ")
    own.file.write_text(content + SHARED + paths)
    file = ["--config", str(own.file)]
    given = [*file, "--here"]
    for words in (
        ["src.checks", *file],
        ["src.lr_finder", *given],
        ["src.grid_search", *given],
        ["src.train", *given, "--best"],
        ["src.evaluate", *given],
    ):
        done = fork_python(*words)
        assert done.returncode == 0, done.stdout + done.stderr
    # Two epochs memorize nothing, which the command reports; the report shows it.
    assert fork_python("src.train", *given, "--overfit_small").returncode == 2


@pytest.fixture(scope="module")
def table(shared_folder: Path) -> Own:
    """Rows of a table in three named splits of uneven classes, and a network with an option."""
    return made(shared_folder, "table")


@pytest.fixture(scope="module")
def digits(shared_folder: Path) -> Own:
    """Grey images of one split, from which val and test are taken, and a network with a part that is not trained."""
    return made(shared_folder, "digits")


def sentences(markdown: str) -> str:
    """The report without the configuration, whose keys are those of every experiment, on lines of plain text."""
    return markdown.split('<a id="config">')[0].replace("\\", "").replace("\u00a0", " ").replace(
        "\u202f", " "
    ) + markdown.split('<a id="section_12">')[1].replace("\\", "")


ABOUT_OTHER_DATA = r"(?i)image|pixel|colou?r|couleur|RGB|Tiny|inception|\b200\b|augmentées?\b|augmented"


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_report_of_a_table_is_about_a_table(table: Own, language: str) -> None:
    markdown, html = table.report(language)
    texts = ReportTexts(language)
    said = sentences(markdown)
    found = [line for line in said.splitlines() if re.search(ABOUT_OTHER_DATA, line.replace(str(table.folder), ""))]
    assert found == []
    gaps = re.findall(r'<a id="(\w+)"></a>[^<]*> \*\*' + texts("gap")[:-1], markdown)
    assert gaps == ["M7", "M8"]
    assert "<figure" in html or "<img" in html
    for sentence in EXPECTED_OF_TABLE[language]:
        assert sentence in said
    # Of five classes or fewer, the right one is always among the five most probable.
    assert "top5" not in between(markdown, "M9", "section_10").replace("\\", "")
    assert "Batch" not in between(markdown + '<a id="end">', "section_12", "end")
    assert "Adam" not in between(markdown + '<a id="end">', "section_12", "end")


EXPECTED_OF_TABLE = {
    "en": (
        "- source: my_data:rows, a function of the project\n",
        "- input: values (float32)\n",
        "- input shape: (5,)\n",
        "train has examples of the split “train” of the data set.",
        "All inputs have the shape (5,) and the type float32.",
        "No input is in two splits.",
        "values of about mean 0 and standard deviation 1",
        "Measured: the first batch (16 inputs) goes through",
        "The inputs are values, so there is no picture of them.",
        "Inputs (16, 5) = (batch, then the shape of one input)",
        "always answering “0”, the most frequent class of train, gives the accuracy 0.5000 (val), 0.5000 (test).",
        "| width | 7 |  | 4 (39), 6 (57) |",
        "The train loss is a mean over the epoch.\n",
        "Test minus val accuracy",
        "on new data",
    ),
    "fr": (
        "- source : my_data:rows, une fonction du projet\n",
        "- entrée : valeurs (float32)\n",
        "- dimensions d'entrée : (5,)\n",
        "train a des exemples du split « train » du jeu de données.",
        "Toutes les entrées ont la forme (5,) et le type float32.",
        "Aucune entrée n'est dans deux splits.",
        "valeurs de moyenne proche de 0 et d'écart type proche de 1",
        "Mesuré : le premier batch (16 entrées) passe par",
        "Les entrées sont des valeurs : il n'y a rien à dessiner.",
        "Entrées (16, 5) = (batch, puis la forme d'une entrée)",
        "répondre toujours « 0 », la classe la plus fréquente de train, donne l'accuracy 0,5000 (val), 0,5000 (test).",
        "| width | 7 |  | 4 (39), 6 (57) |",
        "La train loss est une moyenne sur l'époque.\n",
        "Accuracy test moins val",
        "de nouvelles données",
    ),
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_report_of_grey_digits_is_about_them(digits: Own, language: str) -> None:
    markdown, _ = digits.report(language)
    said = sentences(markdown)
    # The conversion of colours is a parameter of an operation.
    found = [line for line in said.splitlines() if re.search(r"(?i)\bcolou?r\b|couleur|RGB|Tiny|\b200\b", line)]
    assert found == []
    for sentence in EXPECTED_OF_DIGITS[language]:
        assert sentence in said
    assert "top5_accuracy" in between(markdown, "M9", "section_10").replace("\\", "")


EXPECTED_OF_DIGITS = {
    "en": (
        "- input: grey image\n",
        "- input shape (channels, height, width): (1, 8, 8)\n",
        "Drawn from the split “train”: 20 % val, 20 % test, stratified by class, seed 42.",
        "permutes its examples, with one generator for all classes; the first 3 of a class go to test, the next 3 of",
        "All images are grey (L).",
        "*Training images as preprocessed.*\n",
        "from left to right: ",
        "Images (16, 1, 8, 8) = (batch, channels, height, width)",
        "With 10 classes, a network that has learnt nothing is right in about 0.1000 of all cases",
        "- trainable parameters: 1,454\n- all parameters, with those that are not trained: 1,490\n",
        "| 0 | Conv2d 1 -> 4, 3x3, bias | 4×6×6 | 4 (+ 36 frozen) |",
        "✓ gradients reach every weight that is trained",
    ),
    "fr": (
        "- entrée : image en niveaux de gris\n",
        "- dimensions d'entrée (canaux, hauteur, largeur) : (1, 8, 8)\n",
        "Tirés du split « train » : 20 % val, 20 % test, stratifié par classe, seed 42.",
        "permute ses exemples, avec un seul générateur pour toutes les classes ; les 3 premiers de chaque classe vont",
        "Toutes les images sont en niveaux de gris (L).",
        "*Images d'entraînement après prétraitement.*\n",
        "Images (16, 1, 8, 8) = (batch, canaux, hauteur, largeur)",
        "Avec 10 classes, un réseau qui n'a rien appris a raison dans environ 0,1000 des cas",
        "- tous les paramètres, avec ceux qui ne sont pas entraînés : 1 490\n",
        "✓ les gradients atteignent tous les poids entraînés",
    ),
}


def test_the_report_is_written_where_the_data_is_not(table: Own, tmp_path: Path) -> None:
    there, _ = table.report()
    away = Own(tmp_path / "away")
    shutil.copytree(table.folder, away.folder, ignore=shutil.ignore_patterns("data", "report"))
    # Whoever calls it, or has no links to its files, gets an error.
    (away.folder / "my_data.py").write_text("raise SystemExit('no data here')\n")
    text = away.file.read_text().replace(str(table.folder), str(away.folder))
    away.file.write_text(f"project: {{links: [files of the data]}}\n{text}")
    here, _ = away.report()
    for start, end in (("D1", "M0"), ("M0", "section_3"), ("M4", "M5"), ("M5", "section_6"), ("M6", "M7")):
        mine = between(here, start, end).replace(str(away.folder), "")
        assert mine == between(there, start, end).replace(str(table.folder), "")
    assert not (away.folder / "data").exists()


def test_without_runs_and_data_there_are_gaps_and_nothing_is_made(table: Own, tmp_path: Path) -> None:
    away = Own(tmp_path)
    away.file.write_text(table.file.read_text().replace(str(table.folder), str(tmp_path)))
    (tmp_path / "my_data.py").write_text("raise SystemExit('no data here')\n")
    (tmp_path / "nets.py").write_text(NETS)
    markdown, _ = away.report()
    assert "- classes: auto\n" in markdown
    assert "The checks have not been run" in between(markdown, "D1", "section_1_2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["artifacts", "my_data.py", "nets.py", "small.yaml"]
