from __future__ import annotations

import pytest

from src.models.options import Model
from src.models.registry import build_model, count_parameters
from src.models.summary import layer_table, option_facts


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
    model = Model()
    rows = {row["name"]: row for row in layer_table(build_model(model), model.input_shape)}
    assert rows["stem.0"]["layer"] == "Conv2d 3 -> 64, 3x3, padding 1"
    assert rows["features.0"] == {
        "name": "features.0",
        "layer": "InceptionModule",
        "output": [192, 64, 64],
        "parameters": 0,
    }
    assert rows["features.2"]["layer"] == "MaxPool2d 2x2, stride 2, padding 0"
    assert rows["features.5"]["output"] == [192, 16, 16]
    assert rows["classifier"]["parameters"] == 192 * 200 + 200


def test_an_option_has_the_parameters_of_each_of_its_values() -> None:
    modules, branches = option_facts(Model(), {"num_modules": (4, 6), "branch_channels": ((64, 64, 64), (48, 72, 72))})
    assert modules["value"] == 6
    assert [each["value"] for each in branches["parameters"]] == [[64, 64, 64], [48, 72, 72]]
    assert modules["parameters"][1]["parameters"] == count_parameters(build_model(Model()))
    assert modules["parameters"][0]["parameters"] < modules["parameters"][1]["parameters"]
    # The residual network does not read it.
    assert option_facts(Model(type="residual_cnn"), {"branch_channels": ((64, 64, 64),)}) == []
