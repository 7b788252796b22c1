"""Networks that are not ours: what is taken, and what is refused before anything is made, with what to do."""

from __future__ import annotations

import importlib.util
import math
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from relay.errors import ConfigError
from relay.program.own_code import load_own
from src.config.keys import TRAINING, content_key
from src.config.loading import load_config
from src.config.schema import Config
from src.config.train_section import Optimizer
from src.data.dataset import load
from src.data.found import with_found
from src.models.options import Model
from src.models.registry import build_model, known
from src.requests import grid_request
from src.requests.trials import check_trials
from src.training.trial import Input, try_out

ADAM = Optimizer()


def tried(project: Path, network: str, shape: tuple[int, ...] = (3, 16, 16), **options: Any) -> str:
    """Why a network of the project is refused; "" if it is not."""
    model = Model(type=network, num_classes=7, input_shape=shape, options=options)
    return try_out(model, ADAM, str(project))["problem"]


@pytest.mark.parametrize(
    ("network", "options"),
    [
        ("nets:plain", {}),
        ("nets:plain", {"width": 3, "depth": 1}),
        ("nets:Mlp", {"hidden": [5, 4], "drop": 0}),
        ("nets:Frozen", {}),
        ("nets:checked", {"width": 3, "act": "gelu"}),
        ("nets:declared", {"width": 3}),
        ("nets:reads_values", {}),
        ("torchvision/resnet18", {}),
        ("torchvision/mobilenet_v3_small", {"dropout": 0.1}),
    ],
)
def test_a_network_is_taken(project: Path, network: str, options: dict[str, Any]) -> None:
    shape = (3, 32, 32) if "/" in network else (3, 16, 16)
    assert tried(project, network, shape, **options) == ""
    model = Model(type=network, num_classes=7, input_shape=shape, options=options)
    built = build_model(model, str(project)).eval()
    assert built(torch.zeros(2, *shape)).shape == (2, 7)


WRONG = {
    "several": ("return Heads(classes, shape)", "gives a tuple of 2 in evaluation; a network must give one tensor"),
    "in training alone": ("return Aux(classes, shape)", "gives a dict of 2 in training"),
    "classes": ("return flat(shape, 1000)", r"gives \(2, 1000\) for a batch of two in evaluation, must be \(2, 7\)"),
    "one row": ("return nn.Sequential(flat(shape, classes), Mean())", r"gives \(7,\)"),
    "no module": ("return lambda x: x", "gives function; it must return a torch.nn.Module"),
    "nothing": ("pass", "gives NoneType; it must return"),
    "no weights": ("return nn.Flatten()", "has no weights that can be trained"),
    "frozen": ("return flat(shape, classes).requires_grad_(False)", "has no weights that can be trained"),
    "no gradient": ("return nn.Sequential(flat(shape, classes), Detach())", "logits without a gradient in training"),
    "whole numbers": ("return nn.Sequential(flat(shape, classes), Long())", "torch.int64 in evaluation"),
    "shape": ("return nn.Linear(5, classes)", r"cannot take inputs of shape \[3, 16, 16\]: RuntimeError"),
    "raises": ("raise ValueError('no such thing')", r"cannot be built: ValueError: no such thing \(mine.py, line 40\)"),
    "extra state": ("return Extra(classes, shape)", "_extra_state of its state_dict is no tensor"),
}
MINE = """
import torch
from torch import nn


def flat(shape, out):
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], out))


class Heads(nn.Module):
    def __init__(self, classes, shape):
        super().__init__()
        self.one, self.two = flat(shape, classes), flat(shape, 2)

    def forward(self, x):
        return self.one(x), self.two(x)


class Aux(Heads):
    def forward(self, x):
        return {"main": self.one(x), "aux": self.two(x)} if self.training else self.one(x)


class Extra(nn.Module):
    def __init__(self, classes, shape):
        super().__init__()
        self.one = flat(shape, classes)
        self.forward = self.one.forward

    def get_extra_state(self):
        return {"a": 1}


def net(classes, shape):
%s


class Detach(nn.Module):
    def forward(self, x):
        return x.detach()


class Long(nn.Module):
    def forward(self, x):
        return x.long()


class Mean(nn.Module):
    def forward(self, x):
        return x.mean(0)
"""


@pytest.mark.parametrize("name", WRONG)
def test_a_network_that_cannot_be_trained_is_refused(project: Path, name: str) -> None:
    body, message = WRONG[name]
    text = MINE % f"    {body}"
    (project / "mine.py").write_text(text)
    line = next(number for number, each in enumerate(text.splitlines(), 1) if body in each)
    with pytest.raises(AssertionError, match=message.replace("line 40", f"line {line}")):
        raise AssertionError(tried(project, "mine:net"))


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        ("nets:nothing", {}, "nets has no `nothing`; it has plain, Mlp, Frozen"),
        ("nts:plain", {}, "there is no module nts in the project .*; it has broken, exits, fails, needs, nets, opts"),
        ("nets:plain", {"widht": 3}, "model.options.widht: unknown; did you mean width"),
        ("nets:plain", {"width": "x"}, "model.options.width: 'x' is not a whole number; nets.plain.width: int = 6"),
        ("nets:checked", {"width": 1}, "greater than or equal to 2"),
        ("nets:declared", {}, "model.options.width: missing"),
        ("nets:NETS", {}, "nets has no `NETS`"),
        ("torchvision/resnet19", {}, "has no classification network 'resnet19'; did you mean resnet18"),
        ("torchvision/fcn_resnet50", {}, "has no classification network 'fcn_resnet50'"),
        ("torchvision/resnet18", {"width": 3}, "model.options: torchvision/resnet18 cannot be built .*width"),
        ("torchvision/resnet18", {"num_classes": 3}, "model.options.num_classes: is set by Relay"),
        ("torchvision/inception_v3", {"init_weights": False}, "cannot take inputs of shape"),
        ("src.nets:net", {}, "in Relay's process, src is its own code; .* such as my_src"),
        ("uses_src:net", {}, "its code imports src: in Relay's process"),
        ("uses_tests:net", {}, "its code imports tests: in Relay's process"),
        ("needs:net", {}, "imports no_such_package, which .* does not have; to install it: uv pip install"),
        ("broken:net", {}, "broken cannot be imported: SyntaxError"),
        ("fails:net", {}, r"fails cannot be imported: ZeroDivisionError: division by zero \(fails.py, line 1\)"),
        ("exits:net", {}, "exits cannot be imported: SystemExit"),
        ("json:loads", {}, "json is .*, and no module of the project"),
        ("short:net", {}, r"must take the number of classes and the shape of an input first: def net\(classes, shape"),
        ("short:number", {}, "is no function or class, but int"),
    ],
)
def test_a_wrong_name_or_option_is_refused(project: Path, network: str, options: dict[str, Any], message: str) -> None:
    (project / "src").mkdir()
    (project / "src" / "layers.py").write_text("from torch import nn\n")
    (project / "tests").mkdir()
    (project / "tests" / "layers.py").write_text("from torch import nn\n")
    for module, text in {
        "uses_src": "from src.layers import nn\ndef net(classes, shape): return nn.Linear(1, 1)\n",
        "uses_tests": "def net(classes, shape):\n    from tests.layers import nn\n",
        "needs": "import no_such_package.sub\n",
        "broken": "def net(:\n",
        "fails": "1 / 0\n",
        "exits": "raise SystemExit(3)\n",
        "short": "number = 3\ndef net(classes): pass\n",
    }.items():
        (project / f"{module}.py").write_text(text)
    shape = (3, 32, 32) if "/" in network else (3, 16, 16)
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(tried(project, network, shape, **options))


def test_heads_that_only_training_has_are_refused(project: Path) -> None:
    problem = tried(project, "torchvision/googlenet", (3, 64, 64), init_weights=False)
    assert "gives a GoogLeNetOutputs of 3 in training" in problem
    assert tried(project, "torchvision/googlenet", (3, 64, 64), init_weights=False, aux_logits=False) == ""


def test_grey_images_and_a_network_for_three_channels(project: Path) -> None:
    assert "preprocess.mode=RGB repeats grey on all of them" in tried(project, "torchvision/resnet18", (1, 32, 32))


def test_modules_of_two_projects_are_kept_apart(project: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "nets.py").write_text("import helper\nvalue = helper.value\n")
    (other / "helper.py").write_text("value = 2\n")
    assert callable(load_own("nets:plain", str(project), "k"))
    assert load_own("nets:value", str(other), "k") == 2
    assert callable(load_own("nets:plain", str(project), "k"))
    with pytest.raises(ConfigError, match="there is no module helper"):
        load_own("helper:value", str(project), "k")


def test_options_are_part_of_the_key_and_ours_are_not(small: Callable[..., Config]) -> None:
    def key(**given: Any) -> str:
        return content_key(small(model__type="nets:plain", **given), TRAINING)

    assert key() == key(model__num_modules=1, model__dropout=0.5, project__path="/elsewhere")
    assert len({key(), key(model__options={"width": 3}), key(model__options={"width": 4})}) == 3
    assert key() != content_key(small(model__type="nets:other"), TRAINING)


def relay_yaml(project: Path, text: str) -> Config:
    file = project / "relay.yaml"
    data = "dataset: {name: synthetic, root: DATA, classes: 4, synthetic_train_per_class: 8,\n  "
    data += "synthetic_valid_per_class: 4, split: {val: 8, test: 8}, num_workers: 0}\npreprocess: {resize: [16, 16]}\n"
    file.write_text(data.replace("DATA", str(project.parent / "data")) + text)
    return load_config(file, [f"paths.{name}_dir={project.parent / name}" for name in ("runs", "artifacts", "logs")])


def test_axes_over_networks_and_their_options(project: Path) -> None:
    config = relay_yaml(
        project, "model: {type: nets:plain}\nhparams: {lr: [0.1, 0.2], width: [3, 4], dropout: [0.1]}\n"
    )
    overrides = [cell.overrides for cell in grid_request(config).cells]
    assert overrides[0] == {"train.optimizer.lr": 0.1, "model.options.width": 3, "model.options.dropout": 0.1}
    assert len(overrides) == 4
    config = relay_yaml(project, "hparams: {type: [nets:plain, inception_multibranch], lr: [0.1, 0.2]}\n")
    request = grid_request(config)
    assert [cell.overrides["model.type"] for cell in request.cells[1:3]] == ["nets:plain", "inception_multibranch"]
    assert request.project is not None
    assert set(request.project.digests) == {"nets.py", "opts.py", "tables.py"}


def test_an_option_that_one_network_of_the_grid_does_not_read_is_refused(project: Path) -> None:
    axes = "hparams: {type: [nets:plain, inception_multibranch], model.options.width: [3, 4]}\n"
    text = f"model: {{type: nets:plain}}\n{axes}"
    with pytest.raises(ConfigError, match=r"inception_multibranch does not read model.options.width"):
        grid_request(relay_yaml(project, text))


def test_wrong_cells_are_named(project: Path) -> None:
    config = relay_yaml(project, "model: {type: nets:plain}\nhparams: {width: [3, 4], heads: [1]}\n")
    request = grid_request(config)
    with pytest.raises(ConfigError, match=r"model.options.heads: unknown; nets.plain has width, depth \(k=000"):
        request.check()
    assert not config.paths.runs.exists()


def test_a_last_batch_of_one_is_refused_where_the_network_cannot_take_it(project: Path) -> None:
    config = relay_yaml(project, "model: {type: nets:Mlp}\ntrain: {batch_size: 31}\n")
    with pytest.raises(ConfigError, match=r"leaves one of the 32 training images .*nets:Mlp cannot be trained on one"):
        check_trials({"train": with_found(config)}, load)
    fitting = relay_yaml(project, "model: {type: nets:plain}\ntrain: {batch_size: 31}\n")
    check_trials({"train": with_found(fitting)}, load)


def test_what_is_known_of_a_network_that_is_not_ours() -> None:
    assert known("torchvision/resnet18").package == "torchvision"
    # A network of one's own may call `view`, which fails for channels_last.
    assert known("nets:plain").faster_channels_last == frozenset()
    assert math.prod(Model(input_shape=(3, 4)).shape) == 12


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("hidden:net", "model.type: helper lies in the project, but is not frozen with it"),
        ("linked:net", r"its code imports lib\.part, which lies in project.links and is not frozen"),
        ("reads:net", "No such file or directory: 'w.npy'.*; it lies in the project, but is not frozen with it"),
    ],
)
def test_it_is_tried_with_what_is_frozen(project: Path, network: str, message: str) -> None:
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    (project / ".gitignore").write_text("helper.py\n*.npy\n")
    (project / "lib").mkdir()
    (project / "w.npy").write_bytes(b"\0")
    for module, text in {
        "helper": "",
        "hidden": "import helper\n",
        "lib/part": "",
        "linked": "import lib.part\n",
        "reads": "open('w.npy')\n",
    }.items():
        (project / f"{module}.py").write_text(f"{text}def net(classes, shape): pass\n")
    config = relay_yaml(project, f"model: {{type: '{network}'}}\nproject: {{links: [lib]}}\n")
    with pytest.raises(ConfigError, match=message):
        check_trials({"train": with_found(config)}, load)


def test_a_module_cannot_change_the_current_folder(project: Path) -> None:
    (project / "moves.py").write_text(
        "import os\nos.chdir('/')\nfrom torch import nn\n\n\ndef net(classes, shape):\n    os.chdir('/')\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], classes))\n"
    )
    before = Path.cwd()
    assert tried(project, "moves:net") == ""
    assert Path.cwd() == before


@pytest.mark.parametrize(("largest", "refused"), [(10, False), (11, True)])
def test_whole_numbers_are_tried_up_to_the_largest(project: Path, largest: int, refused: bool) -> None:
    model = Model(type="nets:Words", num_classes=2, input_shape=(7,))
    problem = try_out(model, ADAM, str(project), Input("int64", largest))["problem"]
    assert ("index out of range" in problem) is refused


def test_a_lazy_network_of_whole_numbers_is_taken(project: Path) -> None:
    (project / "lazy.py").write_text(
        "from torch import nn\ndef net(classes, shape):\n"
        "    return nn.Sequential(nn.Embedding(11, 3), nn.Flatten(), nn.LazyLinear(classes))\n"
    )
    model = Model(type="lazy:net", num_classes=2, input_shape=(7,))
    assert try_out(model, ADAM, str(project), Input("int64", 10))["problem"] == ""


def test_networks_of_timm(project: Path) -> None:
    if importlib.util.find_spec("timm") is None:
        assert "needs the package timm, which the Python that executes it" in tried(project, "timm/resnet18")
        pytest.skip("timm is not installed here")
    assert tried(project, "timm/resnet18", (1, 32, 32)) == ""
    assert tried(project, "timm/vit_tiny_patch16_224", (3, 32, 32), img_size=32) == ""
    assert "timm has no network 'resnet19'; did you mean" in tried(project, "timm/resnet19")
