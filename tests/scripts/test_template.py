"""Parameters reach a command exactly as they were written, and one that reaches it nowhere is refused."""

from __future__ import annotations

import json
import random
import string
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from relay.errors import ConfigError
from relay.projects.config import load_program
from relay.projects.request import train_request
from relay.scripts.template import Template, text_of
from tests.node.supervised import execute, planned_run
from tests.scripts import write_script

SHOW = """
import json, os, sys
found = {"argv": sys.argv[1:], "variables": {k: v for k, v in os.environ.items() if k.startswith("RELAY_PARAM_")}}
json.dump(found, open("found.json", "w"))
"""
NASTY = [
    *(
        "",
        " ",
        "a b",
        "  two  ",
        "'",
        '"',
        "it's",
        '"quoted"',
        "\\",
        "\\n",
        "a\nb",
        "\n",
        "\t",
        "$HOME",
        "${HOME}",
        "`id`",
    ),
    *(
        "$(id)",
        "a;b",
        "a|b",
        "a&b",
        ">out",
        "*",
        "~",
        "-",
        "--",
        "--lr",
        "-x",
        "=",
        "a=b",
        "#no",
        "!x",
        "{",
        "}",
        "{lr}",
    ),
    *(
        "{{",
        "{}",
        "é",
        "日本語",
        "😀",
        "\u202e",
        "\x85",
        "\u2028",
        "\x7f",
        "\x01",
        "\ufeffx",
        "null",
        "true",
        "1e-3",
        "010",
    ),
    *(
        "yes",
        "2026-11-30",
        "&a",
        "*a",
        "!!int 3",
        "- x",
        "a: b",
        "%",
        "@",
        "x" * 5000,
        "é" * 3000,
        "\r",
        "\r\n",
        " \n x",
    ),
    *(
        True,
        False,
        None,
        0,
        -1,
        2**63,
        1e-5,
        0.1,
        1e300,
        -0.0,
        [],
        [1, 2],
        ["a b", "c'd"],
        [[1], [None, True]],
        ["é", "\n"],
    ),
]


def random_values(count: int) -> list[Any]:
    rng = random.Random(count)
    letters = string.printable + "éß日本😀\u2028\x85\x1b{}$`'\"\\" * 3

    def text() -> str:
        return "".join(rng.choice(letters) for _ in range(rng.randrange(40)))

    makers = [
        text,
        text,
        lambda: rng.choice([True, False, None]),
        lambda: rng.randint(-(2**63), 2**63),
        lambda: rng.uniform(-1, 1) * 10 ** rng.randint(-30, 30),
        lambda: [rng.choice([text(), rng.random(), None, True]) for _ in range(rng.randrange(4))],
    ]
    return [*NASTY, *(rng.choice(makers)() for _ in range(count - len(NASTY)))]


def found_by_the_child(folder: Path, command: str, params: dict[str, Any], python: str | None = None) -> dict[str, Any]:
    """What a real run's process was given."""
    program = {"command": command, "restart": None, **({"python": python} if python else {})}
    run = planned_run(write_script(folder, SHOW, params=params, program=program))
    execute(run)
    found: dict[str, Any] = json.loads((run.work / "found.json").read_text())
    return found


BEHIND_A_PREFIX = f"env -u NOTHING timeout 60 {sys.executable}"


@pytest.mark.parametrize("python", [None, BEHIND_A_PREFIX], ids=["alone", "behind a prefix"])
def test_300_values_reach_the_child_as_they_were_written(tmp_path: Path, python: str | None) -> None:
    params = {f"p{number}": value for number, value in enumerate(random_values(300))}
    texts = [text_of(value) for value in params.values()]
    by_name = " ".join(f"{{{name}}}" for name in params)
    found = found_by_the_child(
        tmp_path, f"python train.py {by_name} --x={{p3}}y {{args}} {{params_file}}", params, python
    )
    argv = found["argv"]
    assert argv[:300] == texts
    assert argv[300] == f"--x={texts[3]}y"
    assert argv[301:901:2] == [f"--{name}" for name in params]
    assert argv[302:902:2] == texts
    assert found["variables"] == {f"RELAY_PARAM_{name.upper()}": text for name, text in zip(params, texts, strict=True)}
    # As any reader of YAML has it.
    read = yaml.safe_load(Path(argv[-1]).read_text())
    assert json.dumps(read) == json.dumps(params)
    for text, value in zip(texts, params.values(), strict=True):
        # Neither kind can be taken for the other one's spelling.
        assert text == value if isinstance(value, str) else json.dumps(json.loads(text)) == json.dumps(value)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("a {lr} b", ["a", "0.1", "b"]),
        ("a '{lr} b'", ["a", "0.1 b"]),
        ('a "--x={lr}"', ["a", "--x=0.1"]),
        ("a {{lr}} {{{lr}}}", ["a", "{lr}", "{0.1}"]),
        ("a '{{\"x\": {lr}}}'", ["a", '{"x": 0.1}']),
        ("a \\{{ $HOME `id` *", ["a", "{", "$HOME", "`id`", "*"]),
        ("a\n  --lr {lr}\n  {optimizer.name}", ["a", "--lr", "0.1", "adam w"]),
        ("a {args}", ["a", "--lr", "0.1", "--optimizer.name", "adam w"]),
        ("a ''", ["a", ""]),
    ],
)
def test_a_template_is_split_once(template: str, words: list[str]) -> None:
    assert Template.read(template, "program.command").words({"lr": 0.1, "optimizer.name": "adam w"}) == words


@pytest.mark.parametrize(
    ("program", "params", "said"),
    [
        ({"command": "python train.py --lr {lrr}"}, {"lr": 1}, "{lrr} is no parameter; did you mean 'lr'?"),
        ({"command": "python train.py"}, {"lr": 1}, "params.lr: reaches the command nowhere"),
        ({"command": "python train.py {lr:.3f}"}, {"lr": 1}, "{lr:.3f} is no parameter"),
        ({"command": "python train.py {lr"}, {"lr": 1}, "a single brace"),
        ({"command": "python train.py }"}, {}, "a single brace"),
        ({"command": "python train.py 'a"}, {}, "No closing quotation"),
        ({"command": "python train.py --all={args}"}, {"lr": 1}, "{args} stands for several words"),
        ({"command": "python train.py {checkpoint}"}, {}, "{checkpoint} is no parameter"),
        ({"command": "python train.py {args}"}, {"args": 1}, "params.args: {args} has a meaning of its own"),
        ({"command": "python train.py {args}"}, {"lr": 1, "LR": 2}, "RELAY_PARAM_LR; rename one of them"),
        ({"command": "python train.py {args}"}, {"text": "x" * 200_000}, "an argument at most"),
        ({"command": "  "}, {}, "has no words"),
        ({"command": "python trian.py"}, {}, "trian.py: there is no such file"),
        ({"command": "./trian.sh"}, {}, "trian.sh: there is no such file"),
        ({"command": "python train.py", "python": "no/such/python"}, {}, "does not exist, or cannot be executed"),
        ({"command": "python train.py", "function": "train:main"}, {}, "has both a function and a command"),
        ({"command": None}, {}, "has neither a function nor a command"),
        ({"command": "python train.py", "stop": {"signal": "KILL"}}, {}, "program.stop.signal: 'KILL' is not allowed"),
        ({"command": "python train.py", "stop": {"signal": "TERM", "file": "S"}}, {}, "both a signal and a file"),
        (
            {"command": "python train.py", "stop": {"file": "/tmp/S"}},
            {},
            "program.stop.file: /tmp/S: give a path below",
        ),
        (
            {"command": "python train.py", "metrics": {"from": "../x"}},
            {},
            "program.metrics.from: ../x: give a path below",
        ),
        (
            {"command": "python train.py", "metrics": {"read": "wandb"}},
            {},
            "program.metrics.read: 'wandb' is not allowed",
        ),
        ({"command": "python train.py", "restart": {"add": "--resume"}}, {}, "program.restart.checkpoint: missing"),
        (
            {"command": "python train.py", "restart": {"checkpoint": "/x/*"}},
            {},
            "restart.checkpoint: /x/*: give a path",
        ),
        (
            {"command": "python train.py", "restart": {"checkpoint": "x", "add": "--r {chekpoint}"}},
            {},
            "did you mean 'checkpoint'?",
        ),
        (
            {"command": None, "function": "train:main", "restart": {"checkpoint": "x"}},
            {},
            "program.restart: is of a command",
        ),
    ],
)
def test_what_cannot_be_executed_is_refused_where_it_is_planned(
    tmp_path: Path, program: dict[str, Any], params: dict[str, Any], said: str
) -> None:
    file = str(write_script(tmp_path, params=params, program={"restart": None, **program}))
    with pytest.raises(ConfigError) as error:
        train_request(load_program(file), file)
    assert said in str(error.value)


@pytest.mark.parametrize(
    "code", ["import os; os.environ['RELAY_PARAM_LR']", "import os; os.environ[f'RELAY_PARAM_{name}']"]
)
def test_a_variable_that_a_file_of_the_project_reads_reaches_the_script(tmp_path: Path, code: str) -> None:
    file = str(write_script(tmp_path, code, params={"lr": 1}, program={"command": "python train.py", "restart": None}))
    train_request(load_program(file), file)


def test_a_variable_of_another_parameter_does_not(tmp_path: Path) -> None:
    code = "import os; os.environ['RELAY_PARAM_LRS']"
    file = str(write_script(tmp_path, code, params={"lr": 1}, program={"command": "python train.py", "restart": None}))
    with pytest.raises(ConfigError, match="reaches the command nowhere"):
        train_request(load_program(file), file)


def test_a_metric_with_the_name_of_a_column(tmp_path: Path) -> None:
    file = str(write_script(tmp_path, metrics={"select": {"name": "error", "direction": "min"}}))
    with pytest.raises(ConfigError, match="logged/error"):
        train_request(load_program(file), file)
