"""The README and docs/: links, the reference of the keys, and the commands that need no SLURM."""

from __future__ import annotations

import os
import re
import subprocess
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from docs.reference import DOCUMENT, reference
from tests.conftest import ROOT
from tests.manual import IN_A_PROJECT, NOT_RUN, ON_SLURM, PAGES, commands, is_of_a_project, is_run, page
from tests.scripts import TRAIN

# What makes the commands of a page short: they are executed as they are, but for these words.
SHORT = {
    "programs.md": {
        "--cluster local": "--cluster local --set params.steps=20 --set 'hparams={lr: [3e-3]}'",
        "--cluster h100-mig": "--cluster h100-mig --dry-run",
        "relay verify": "relay verify --steps 12",
    },
    "own-data.md": {"--best": "--best --cluster local", "relay evaluate": "relay evaluate --cluster local"},
    "scripts.md": {
        "--cluster NAME": "--cluster local",
        "relay verify": "relay verify --set 'verify.params={pause: 0.05}'",
    },
}


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_readme_has_at_most_900_words() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 900


@pytest.mark.parametrize("document", PAGES, ids=lambda path: path.name)
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", document.read_text())
    for link in links:
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name) if name else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


def test_the_readme_leads_to_every_page_of_the_manual() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [each.name for each in (ROOT / "docs").glob("*.md") if f"(docs/{each.name})" not in readme] == []


def test_the_reference_is_that_of_the_schemas() -> None:
    assert DOCUMENT.read_text() == reference(), (
        "docs/reference.md is not that of the schemas; to write it: make reference"
    )


def test_every_command_of_every_page_is_executed_or_has_a_reason() -> None:
    assert [
        f"{each.name}: {line}"
        for each in PAGES
        for line in commands(each)
        if is_run(line) and each.name not in (IN_A_PROJECT if is_of_a_project(line) else ON_SLURM)
    ] == []
    every = [line for each in PAGES for line in commands(each)]
    assert [begin for begin in NOT_RUN if not any(line.startswith(begin) for line in every)] == []


def test_what_no_test_executes_exists() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    for line in (line for each in PAGES for line in commands(each) if not is_run(line)):
        if line.startswith("make "):
            assert line.split()[1] in targets, line
        elif line.startswith("python -m "):
            assert find_spec(line.split()[2]), line


def prepared(name: str, folder: Path) -> None:
    """What the reader of a page has in the folder."""
    if name == "scripts.md":
        (folder / "train.py").write_text(TRAIN)
    if name == "own-data.md":
        generator = np.random.default_rng(0)
        for label in ("cat", "dog"):
            images = folder / "photos" / "train" / label
            images.mkdir(parents=True)
            for number in range(30):
                pixels = generator.integers(0, 255, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(images / f"{number}.png")
        text = (ROOT / "docs" / name).read_text()
        block = text.split("    # relay.yaml\n", 1)[1].split("\n\n", 1)[0]
        content = "\n".join(line[4:] for line in block.splitlines())
        for long, short in (("[64, 64]", "[32, 32]"), ("epochs: 20", "epochs: 1"), ("epochs: 5", "epochs: 1")):
            assert long in content
            content = content.replace(long, short)
        content = content.replace("[3e-4, 1e-3, 3e-3]", "[3e-4]").replace("[0, 1, 2]", "[0, 1]")
        (folder / "relay.yaml").write_text(content + "\n")


@pytest.mark.parametrize("name", SHORT)
def test_the_commands_of_a_project(name: str, tmp_path: Path) -> None:
    if not (ROOT / ".venv" / "bin" / "python").exists():
        pytest.skip("there is no .venv in the checkout: make setup")
    here = tmp_path / "here"
    here.mkdir()
    prepared(name, here)
    lines = [line for line in commands(page(name)) if is_of_a_project(line) and is_run(line)]
    script = ["set -e"]
    for line in lines:
        for long, short in SHORT[name].items():
            line = line.replace(long, short)
        # `verify` says by its exit code whether a run is exact, which this script is not.
        script += [f'echo "$ {line}"', f"{line} || [ $? = 1 ]" if line.startswith("relay verify") else line]
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "relay").symlink_to(ROOT / "bin" / "relay")
    env = {
        **{key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "CONDA_PREFIX")},
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "TMPDIR": str(tmp_path),
    }
    done = subprocess.run(
        ["bash"],
        input="\n".join(script),
        cwd=here,
        env=env,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


# So the commands of the README are executed with those of docs/programs.md.
def test_the_readmes_project_is_that_of_the_manual() -> None:
    own = [line for line in commands(page("README.md")) if is_of_a_project(line)]
    assert own
    assert set(own) <= set(commands(page("programs.md")))
