from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from relay.errors import CheckpointError, ConfigError
from src.config.keys import TRAINING, content_key
from src.config.schema import Config
from src.models.options import Model
from src.models.registry import NETWORKS, build_model, count_parameters, reads
from src.training.weights import load_checkpoint, load_weights


def model_of(**options: Any) -> Model:
    """A network for the images of the report, unless the options say otherwise."""
    return Model(**{"num_classes": 200, "input_shape": (3, 64, 64), **options})


@pytest.mark.parametrize(
    ("num_modules", "branches", "parameters"),
    [(4, (64, 64, 64), 492_424), (6, (64, 64, 64), 763_528), (6, (48, 64, 80), 763_528), (4, (100, 64, 28), 492_424)],
)
def test_parameter_counts_are_the_reports(num_modules: int, branches: tuple[int, int, int], parameters: int) -> None:
    assert count_parameters(build_model(model_of(num_modules=num_modules, branch_channels=branches))) == parameters


@pytest.mark.parametrize(("num_modules", "pools"), [(1, []), (2, []), (3, [2]), (4, [2]), (5, [2, 5]), (6, [2, 5])])
def test_pools_stand_after_every_second_module_but_the_last(num_modules: int, pools: list[int]) -> None:
    features = build_model(model_of(num_modules=num_modules, branch_channels=(2, 2, 2))).features
    assert [i for i, layer in enumerate(features) if isinstance(layer, nn.MaxPool2d)] == pools


def test_state_dict_names_are_the_reports() -> None:
    names = set(build_model(model_of(num_modules=4)).state_dict())
    for index in (0, 1, 3, 4):
        expected = {
            "branch1.0.weight",
            "branch2.0.weight",
            "branch3.1.weight",
            "bn.weight",
            "bn.bias",
            "bn.running_mean",
            "bn.running_var",
        }
        assert {f"features.{index}.{name}" for name in expected} <= names
    assert {"stem.0.weight", "classifier.weight", "classifier.bias"} <= names
    assert not any(name.startswith("features.2.") for name in names)
    assert not any("branch" in name and name.endswith("bias") for name in names)


def test_forward_is_the_description_of_the_report() -> None:
    """The same numbers as the layers written out by hand."""
    torch.manual_seed(0)
    network = build_model(model_of(num_modules=4, branch_channels=(3, 4, 5), stem_channels=6, num_classes=7)).eval()
    state = network.state_dict()
    images = torch.randn(2, 3, 16, 16)
    x = functional.conv2d(images, state["stem.0.weight"], padding=1).relu()
    for index, pool in ((0, False), (1, True), (3, False), (4, False)):
        weights = [state[f"features.{index}.branch{branch}"] for branch in ("1.0.weight", "2.0.weight", "3.1.weight")]
        first = functional.conv2d(x, weights[0]).relu()
        second = functional.conv2d(x, weights[1], padding=1).relu()
        third = functional.conv2d(functional.max_pool2d(x, 3, 1, 1), weights[2]).relu()
        bn = {name: state[f"features.{index}.bn.{name}"] for name in ("running_mean", "running_var", "weight", "bias")}
        x = functional.batch_norm(torch.cat((first, second, third), 1), **bn)
        x = functional.max_pool2d(x, 2) if pool else x
    expected = functional.linear(
        functional.adaptive_avg_pool2d(x, 1).flatten(1), state["classifier.weight"], state["classifier.bias"]
    )
    torch.testing.assert_close(network(images), expected)


@pytest.mark.parametrize(
    "model",
    [
        model_of(activation="gelu", branch_channels=(4, 4, 4), stem_channels=5),
        model_of(activation="tanh", residual=True, branch_channels=(4, 4, 4)),
        model_of(batch_norm=False, dropout=0.5, branch_channels=(1, 2, 3)),
        model_of(hidden_sizes=(9, 8), num_modules=1, branch_channels=(2, 2, 2)),
    ],
)
def test_every_option_gives_logits_and_gradients(model: Model) -> None:
    network = build_model(model)
    logits = network(torch.randn(2, 3, 64, 64))
    assert logits.shape == (2, 200)
    logits.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters() if p.ndim > 1)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
@pytest.mark.parametrize("classifier", ["classifier.", "classifier.1."])
def test_the_reports_checkpoint_loads(tmp_path: Path, prefix: str, classifier: str) -> None:
    model = model_of(num_modules=2, branch_channels=(2, 2, 2), num_classes=5)
    torch.manual_seed(1)
    theirs = build_model(model).state_dict()
    saved = {prefix + name.replace("classifier.", classifier): tensor for name, tensor in theirs.items()}
    path = tmp_path / "best.ckpt"
    torch.save({"epoch": 7, "model_state_dict": saved, "optimizer_state_dict": {}, "val_acc": 0.5}, path)
    torch.manual_seed(2)
    network = build_model(model)
    load_weights(network, load_checkpoint(path)["model_state_dict"], str(path))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in network.state_dict().items())


def test_a_checkpoint_of_another_model_is_refused_by_name() -> None:
    network = build_model(model_of(num_modules=2, branch_channels=(2, 2, 2)))
    other = build_model(model_of(num_modules=3, branch_channels=(2, 2, 3))).state_dict()
    with pytest.raises(CheckpointError) as caught:
        load_weights(network, other, "x.ckpt")
    assert "features.0.branch3.1.weight is [3, 64, 1, 1], the model's [2, 64, 1, 1]" in str(caught.value)
    assert "Set model.type, model.num_classes" in str(caught.value)


class Runs:
    """Would run code when unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("this must not run",))


def test_a_checkpoint_that_would_run_code_is_refused_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "evil.ckpt"
    torch.save({"model_state_dict": {}, "x": Runs()}, path)
    with pytest.raises(CheckpointError, match="refused, it holds more than tensors"):
        load_checkpoint(path)
    assert "must not run" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 torn"])
def test_a_file_that_is_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.ckpt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.ckpt"):
        load_checkpoint(path)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "absent.ckpt")
    torch.save({"weights": {}}, path)
    with pytest.raises(CheckpointError, match="no 'model_state_dict'"):
        load_checkpoint(path)


# Each option that a network may read, with a value that is not the one of `tiny`.
OTHER_VALUES: dict[str, Any] = {
    "num_modules": 3,
    "stem_channels": 5,
    "branch_channels": (2, 2, 3),
    "hidden_sizes": (6,),
    "activation": "gelu",
    "dropout": 0.5,
    "batch_norm": False,
    "residual": True,
}


def tiny(network: str, **options: Any) -> Model:
    shape = {"num_classes": 5, "input_shape": (3, 16, 16), "num_modules": 2, "branch_channels": (2, 2, 2)}
    return Model(**{"type": network, "stem_channels": 4, "hidden_sizes": (7,), **shape, **options})


def trained_logits(model: Model) -> Tensor:
    """The logits after one training step, which dropout and BatchNorm affect."""
    torch.manual_seed(0)
    network = build_model(model).train()
    images = torch.randn(4, 3, 16, 16)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    functional.cross_entropy(network(images), torch.tensor([0, 1, 2, 3])).backward()
    optimizer.step()
    return network.eval()(images).detach()


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("option", OTHER_VALUES)
def test_a_network_and_its_key_follow_the_options_that_it_reads_and_no_others(network: str, option: str) -> None:
    plain, changed = tiny(network), tiny(network, **{option: OTHER_VALUES[option]})
    same_logits = torch.equal(trained_logits(plain), trained_logits(changed))
    keys = {content_key(Config(model=model), TRAINING) for model in (plain, changed)}
    assert same_logits == (len(keys) == 1) == (not reads(network, option))


def test_every_option_of_the_schema_is_read_by_some_network() -> None:
    networks = (*NETWORKS, "torchvision/resnet18")
    assert all(any(reads(network, option) for network in networks) for option in Model.model_fields)
    assert all(issubclass(Model, network.options) for network in NETWORKS.values())
    assert all(reads(name, option) for name, network in NETWORKS.items() for option in network.main_options)


@pytest.mark.parametrize("network", NETWORKS)
def test_equal_seeds_give_equal_networks(network: str) -> None:
    assert torch.equal(trained_logits(tiny(network)), trained_logits(tiny(network)))


def test_eight_blocks_are_resnet_18_on_small_images() -> None:
    model = model_of(type="residual_cnn", num_modules=8, stem_channels=64, num_classes=10)
    # The count of ResNet-18 with the CIFAR stem, as github.com/kuangliu/pytorch-cifar has it.
    assert count_parameters(build_model(model)) == 11_173_962


@pytest.mark.parametrize(
    ("num_modules", "shapes"),
    [
        (1, [(4, 16)]),
        (2, [(4, 16), (4, 16)]),
        (3, [(4, 16), (4, 16), (8, 8)]),
        (5, [(4, 16), (4, 16), (8, 8), (8, 8), (16, 4)]),
    ],
)
def test_blocks_halve_the_image_and_double_the_channels(num_modules: int, shapes: list[tuple[int, int]]) -> None:
    network = build_model(tiny("residual_cnn", num_modules=num_modules))
    images, found = network.stem(torch.randn(2, 3, 16, 16)), []
    for block in network.blocks:
        images = block(images)
        found.append((images.shape[1], images.shape[2]))
    assert found == shapes


def test_a_block_is_the_papers() -> None:
    """The same numbers as the layers written out by hand, in a block with a projection."""
    torch.manual_seed(0)
    network = build_model(tiny("residual_cnn", num_modules=3)).eval()
    state, images = network.state_dict(), torch.randn(2, 4, 16, 16)

    def conv_bn(x: Tensor, name: str, stride: int) -> Tensor:
        weight = state[f"blocks.2.{name}.0.weight"]
        bn = {n: state[f"blocks.2.{name}.1.{n}"] for n in ("running_mean", "running_var", "weight", "bias")}
        return functional.batch_norm(functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2), **bn)

    residual = conv_bn(conv_bn(images, "first", 2).relu(), "second", 1)
    torch.testing.assert_close(network.blocks[2](images), (residual + conv_bn(images, "shortcut", 2)).relu())


@pytest.mark.parametrize("network", ["inception_multibranch", "residual_cnn"])
def test_too_many_modules_for_the_image_are_refused(small: Callable[..., Config], network: str) -> None:
    assert small(model__type=network, model__num_modules=10).model.type == network
    with pytest.raises(
        ConfigError, match=r"model\.num_modules: 11 modules halve the image 5 times, too many for \[16, 16\]"
    ):
        small(model__type=network, model__num_modules=11)


def test_an_unknown_network_is_refused_with_those_that_there_are(small: Callable[..., Config]) -> None:
    with pytest.raises(ConfigError, match=r"model\.type: 'resnet' is not allowed.*; allowed: ") as caught:
        small(model__type="resnet")
    assert all(network in str(caught.value) for network in NETWORKS)
