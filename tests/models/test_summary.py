from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from src.checking.layers import in_parts, parameters_text, summed_up
from src.models.options import Model
from src.models.registry import build_model, count_all_parameters, count_parameters
from src.models.summary import layer_table, option_facts

REPORTS = Model(num_classes=200, input_shape=(3, 64, 64))


@pytest.mark.parametrize("name", ["inception_multibranch", "residual_cnn"])
def test_the_layers_add_up_in_the_order_of_execution(name: str) -> None:
    model = Model(type=name, num_classes=5, input_shape=(3, 16, 16), num_modules=3, stem_channels=6, hidden_sizes=(7,))
    network = build_model(model)
    rows = layer_table(network, model.input_shape)
    assert sum(row["parameters"] for row in rows) == count_parameters(network)
    assert rows[0]["name"].startswith("stem.0")
    assert rows[-1]["output"] == [5]
    # Run again, the hooks of the first time are gone.
    assert layer_table(network, model.input_shape) == rows


def test_a_module_of_the_report_is_shown_with_its_branches() -> None:
    model = REPORTS
    rows = {row["name"]: row for row in layer_table(build_model(model), model.input_shape)}
    assert rows["stem.0"]["layer"] == "Conv2d 3 -> 64, 3x3, padding 1"
    assert rows["features.0"] == {
        "name": "features.0",
        "layer": "InceptionModule",
        "output": [192, 64, 64],
        "parameters": 0,
        "frozen": 0,
    }
    assert rows["features.2"]["layer"] == "MaxPool2d 2x2, stride 2, padding 0"
    assert rows["features.5"]["output"] == [192, 16, 16]
    assert rows["classifier"]["parameters"] == 192 * 200 + 200


def test_an_option_has_the_parameters_of_each_of_its_values() -> None:
    modules, branches = option_facts(
        REPORTS, ".", {"num_modules": (4, 6), "branch_channels": ((64, 64, 64), (48, 72, 72))}
    )
    assert modules["value"] == 6
    assert [each["value"] for each in branches["parameters"]] == [[64, 64, 64], [48, 72, 72]]
    assert modules["parameters"][1]["parameters"] == count_parameters(build_model(REPORTS))
    assert modules["parameters"][0]["parameters"] < modules["parameters"][1]["parameters"]
    # The residual network does not read it.
    assert (
        option_facts(REPORTS.model_copy(update={"type": "residual_cnn"}), ".", {"branch_channels": ((64, 64, 64),)})
        == []
    )


class Sequences(nn.Module):
    """A recurrent network with attention, a layer that is used three times, and weights that no module has."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 6)
        self.read = nn.LSTM(6, 4, num_layers=2, bidirectional=True)
        self.attend = nn.MultiheadAttention(8, 2)
        self.again = nn.Linear(8, 8)
        self.scale = nn.Parameter(torch.ones(3))
        self.head = nn.Linear(8, 5)
        self.head.bias.requires_grad_(False)

    def forward(self, words: Tensor) -> Tensor:
        states, _ = self.read(self.words(words.T))
        states, _ = self.attend(states, states, states)
        for _ in range(3):
            states = self.again(states)
        logits: Tensor = self.head(states.mean(0)) * self.scale.sum()
        return logits


def test_a_layer_of_any_kind_is_listed_once_with_its_own_parameters() -> None:
    network = Sequences()
    rows = layer_table(network, [9], torch.int64)
    assert sum(row["parameters"] for row in rows) == count_parameters(network)
    assert sum(row["parameters"] + row["frozen"] for row in rows) == count_all_parameters(network)
    shown = {row["name"]: (row["layer"], row["output"]) for row in rows}
    assert shown == {
        "words": ("Embedding 11 -> 6", [1, 6]),
        # (length, batch, features): the length is that of the input.
        "read": ("LSTM 6 -> 4, 2 layers, both directions", [9, 8]),
        "attend": ("MultiheadAttention", [1, 8]),
        "again": ("Linear 8 -> 8, used 3 times", [1, 8]),
        "head": ("Linear 8 -> 5", [5]),
        # Their weights are read without calling them.
        "attend.out_proj": ("NonDynamicallyQuantizableLinear 8 -> 8", None),
        "": ("Sequences", None),
    }
    assert parameters_text(rows[4]) == "40 (+ 5 frozen)"


def test_layers_are_described_by_the_largest_parts_that_are_small_enough() -> None:
    names = ["stem", *(f"features.{module}.b{branch}.0" for module in range(3) for branch in range(2)), "head"]
    layers = [{"name": name, "layer": "L", "output": None, "parameters": 1, "frozen": 0} for name in names]
    assert [(row["name"], row["layers"]) for row in in_parts(layers, 2, 9)] == [
        ("stem", 1), *((f"features.{module}", 2) for module in range(3)), ("head", 1)
    ]  # fmt: skip
    assert [row["name"] for row in in_parts(layers, 6, 9)] == ["stem", "features", "head"]
    assert [row["name"] for row in in_parts(layers, 1, 3)] == ["stem", "features", "head"]
    assert in_parts([], 2, 9) == []


def test_many_layers_are_summed_up_by_the_parts_that_they_belong_to() -> None:
    network = nn.Sequential(*(nn.Sequential(*(nn.Sequential(nn.Linear(2, 2)) for _ in range(5))) for _ in range(10)))
    rows = layer_table(network, [2])
    assert summed_up(rows, 50) == [{**row, "layers": 1} for row in rows]
    for most, count in ((49, 10), (9, 10)):
        parts = summed_up(rows, most)
        assert len(parts) == count
        assert {(part["layers"], part["parameters"], tuple(part["output"])) for part in parts} == {(5, 30, (2,))}
        assert [part["name"] for part in parts] == [str(number) for number in range(count)]
    flat = [{**row, "name": str(number)} for number, row in enumerate(rows)]
    assert len(summed_up(flat, 9)) == 50
