"""Parameters of programs: YAML values converted to what a function declares, or one message each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from relay.program.describe import describe
from tests.conftest import ROOT

PROJECT = """
import enum
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import pydantic


class Mode(enum.Enum):
    FAST = "fast"
    EXACT = "exact"


@dataclass
class Schedule:
    kind: str = "step"
    gamma: float = 0.1


@dataclass
class Params:
    lr: float = 1e-3
    width: int = 64
    text: Path = Path("data/x.txt")
    kind: Literal["gru", "lstm"] = "gru"
    mode: Mode = Mode.FAST
    sizes: list[int] = field(default_factory=lambda: [1, 2])
    pair: tuple[int, float] = (1, 2.0)
    limit: int | None = None
    bias: bool = True
    schedule: Schedule = field(default_factory=Schedule)
    weights: dict[str, float] = field(default_factory=dict)
    other: Any = None
    seed: int = 0

    def __post_init__(self):
        if self.width % 8:
            raise ValueError("width must be a multiple of 8")


@dataclass
class Needs:
    lr: float


class Model(pydantic.BaseModel):
    lr: float = 0.1
    depth: int = pydantic.Field(2, ge=1)


def train(run, p: Params): ...
def needs(run, p: Needs): ...
def model(run, p: Model): ...
def keywords(run, *, lr: float, steps: int = 10, run_name: str = "x"): ...
def anything(run, **params): ...
def alone(run): ...
def nothing(): ...
def later(run, p: "Params"): ...
def _private(run): ...
VALUE = 3
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "params_of_test.py").write_text(PROJECT)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "params_of_test", raising=False)
    return tmp_path


def of(function: str, **given: Any) -> dict[str, Any]:
    answer = describe(f"params_of_test:{function}", [given])
    if "problem" in answer:
        return answer
    return dict(answer["cells"][0])


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("lr", 1, 1.0),
        ("lr", 3e-4, 3e-4),
        ("text", "a/b", "a/b"),
        ("kind", "lstm", "lstm"),
        ("mode", "exact", "exact"),
        ("mode", "EXACT", "exact"),
        ("sizes", [3], [3]),
        ("pair", [3, 4], [3, 4.0]),
        ("limit", None, None),
        ("limit", 5, 5),
        ("schedule", {"gamma": 1}, {"kind": "step", "gamma": 1.0}),
        ("weights", {"a": 1}, {"a": 1.0}),
        ("other", [{"a": 1}], [{"a": 1}]),
    ],
)
def test_a_value_becomes_what_is_declared(project: Path, name: str, value: Any, expected: Any) -> None:
    for function in ("train", "later"):
        found = of(function, **{name: value})
        assert found["problems"] == []
        assert found["values"][name] == expected
        assert type(found["values"][name]) is type(expected)


def test_defaults_are_filled_in(project: Path) -> None:
    assert of("train")["values"]["sizes"] == [1, 2]
    assert of("train")["values"]["mode"] == "fast"
    assert of("keywords", lr=1)["values"] == {"lr": 1.0, "steps": 10, "run_name": "x"}
    assert of("anything", a=[1])["values"] == {"a": [1]}
    assert of("alone")["values"] == {}
    assert of("model", depth=3)["values"] == {"lr": 0.1, "depth": 3}


@pytest.mark.parametrize(
    ("function", "given", "problem"),
    [
        ("train", {"wdith": 8}, "params.wdith: unknown; did you mean width? params_of_test.Params has lr, width, text"),
        ("train", {"lr": "fast"}, "params.lr: 'fast' is not a number; params_of_test.Params.lr: float = 0.001"),
        ("train", {"width": 1.5}, "params.width: 1.5 is not a whole number"),
        ("train", {"width": True}, "params.width: True is not a whole number"),
        ("train", {"bias": "yes"}, "params.bias: 'yes' is not true or false"),
        ("train", {"kind": "cnn"}, "params.kind: 'cnn' is none of 'gru', 'lstm'"),
        ("train", {"mode": "slow"}, "params.mode: 'slow' is none of FAST, EXACT"),
        ("train", {"sizes": 3}, "params.sizes: 3 is no list"),
        ("train", {"sizes": ["a"]}, "params.sizes: 'a' is not a whole number"),
        ("train", {"pair": [1]}, "params.pair: [1] has not 2 values"),
        ("train", {"limit": "x"}, "params.limit: 'x' is none of int, NoneType"),
        ("train", {"schedule": {"gama": 1}}, "params.schedule: gama is unknown; Schedule has kind, gamma"),
        ("train", {"schedule": 1}, "params.schedule: 1 is no mapping"),
        ("train", {"text": 1}, "params.text: 1 is no path"),
        ("train", {"width": 12}, "params_of_test.Params refused its values: width must be a multiple of 8"),
        ("needs", {}, "params.lr: missing; params_of_test.Needs.lr: float has no default"),
        ("keywords", {}, "params.lr: missing"),
        ("keywords", {"lr": 1.0, "step": 3}, "params.step: unknown; did you mean steps?"),
        ("alone", {"lr": 1.0}, "params.lr: unknown; params_of_test.alone has none"),
        ("model", {"depth": 0}, "params_of_test.Model refused its values: 1 validation error for Model depth"),
    ],
)
def test_what_does_not_fit_is_one_message(project: Path, function: str, given: dict[str, Any], problem: str) -> None:
    found = of(function, **given)
    assert len(found["problems"]) == 1
    assert problem in found["problems"][0]


def test_all_problems_are_said_at_once(project: Path) -> None:
    assert len(of("train", wdith=8, lr="fast", width=1.5)["problems"]) == 3


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (
            "params_of_test:tain",
            "params_of_test has no `tain`; functions that take a run: train, needs, model, keywords",
        ),
        ("params_of_test:VALUE", "has no `VALUE`"),
        ("params_of_test:nothing", "params_of_test.nothing must take a run first: def nothing(run, ...)"),
        ("nowhere:train", "there is no module nowhere in the project"),
        ("nowhere.deeper:train", "there is no module nowhere.deeper in the project"),
        ("raises:train", "raises cannot be imported: ZeroDivisionError: division by zero (raises.py, line 1)"),
        ("lacks:train", "lacks cannot be imported: ModuleNotFoundError: No module named 'not_installed'"),
        ("exits:train", "exits cannot be imported: SystemExit: 3"),
    ],
)
def test_a_function_that_is_not_there_is_one_message(project: Path, function: str, problem: str) -> None:
    (project / "raises.py").write_text("1 / 0\n")
    (project / "lacks.py").write_text("import not_installed\n")
    (project / "exits.py").write_text("raise SystemExit(3)\n")
    assert problem in describe(function, [{}])["problem"]


def test_what_the_project_prints_does_not_disturb_the_answer(project: Path) -> None:
    (project / "loud.py").write_text(
        "import os, threading, time\nprint('x' * 2**20)\nos.close(1)\n"
        "threading.Thread(target=time.sleep, args=(60,)).start()\ndef train(run, lr: float = 1.0): ...\n"
    )
    answer = project / "answer.json"
    command = [sys.executable, "-m", "relay.program.describe", str(project), "loud:train", str(answer)]
    done = subprocess.run(
        command, cwd=ROOT, input='[{"lr": 2}]', text=True, capture_output=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(answer.read_text())["cells"] == [{"values": {"lr": 2.0}, "problems": []}]
