"""The options of a better recipe: each does what it says, and a run that uses it resumes exactly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from relay.errors import CheckpointError
from src.config.keys import TRAINING, content_key
from src.config.loading import load_config
from src.config.schema import Config
from src.data.dataset import load
from src.models.registry import build_model, count_parameters
from src.training.learner import Learner, WeightAverage
from src.training.metrics import evaluate_split, evaluation_batch
from src.training.optim import make_optimizer
from tests.conftest import ROOT, assert_same_run, final_state
from tests.training.test_trainer import execute, new_run, rewrite_newest

CPU = torch.device("cpu")
ALONE: dict[str, dict[str, Any]] = {
    "label_smoothing": {"train__label_smoothing": 0.1},
    "mixup": {"train__mixup": 0.4},
    "cutmix": {"train__cutmix": 1.0},
    "ema_decay": {"train__ema_decay": 0.9},
    "decay_norm_bias": {"train__optimizer": {"weight_decay": 0.1, "decay_norm_bias": False}},
    "test_time_flip": {"metrics__test_time_flip": True},
}
EACH = [pytest.param(options, id=name) for name, options in ALONE.items()]
ALL = {name: value for options in ALONE.values() for name, value in options.items()}


@pytest.mark.parametrize("options", [*EACH, pytest.param(ALL, id="all")])
def test_a_run_resumes_exactly(small: Callable[..., Config], options: dict[str, Any]) -> None:
    straight, resumed = new_run(small(**options)), new_run(small(**options))
    assert execute(straight) == "done"
    for questions in (2, 5):
        assert execute(resumed, questions) == "stopped"
    assert execute(resumed) == "done"
    assert_same_run(straight, resumed)


@pytest.mark.parametrize("options", EACH)
def test_each_changes_the_result_and_the_key(small: Callable[..., Config], options: dict[str, Any]) -> None:
    base = {"train__optimizer": {"weight_decay": 0.1}}
    plain, other = small(**base), small(**{**base, **options})
    runs = new_run(plain), new_run(other)
    assert [execute(run) for run in runs] == ["done", "done"]
    assert final_state(runs[0])["rows"] != final_state(runs[1])["rows"]
    assert content_key(plain, TRAINING) != content_key(other, TRAINING)
    assert TRAINING.cost_key(plain) == TRAINING.cost_key(other)


def test_written_out_defaults_keep_the_key(small: Callable[..., Config]) -> None:
    train = Config().train
    written = small(
        train__label_smoothing=train.label_smoothing,
        train__mixup=train.mixup,
        train__cutmix=train.cutmix,
        train__ema_decay=train.ema_decay,
        train__optimizer={"decay_norm_bias": train.optimizer.decay_norm_bias},
        metrics__test_time_flip=Config().metrics.test_time_flip,
    )
    assert content_key(written, TRAINING) == content_key(small(), TRAINING)


def test_the_average_is_torchs(small: Callable[..., Config]) -> None:
    """torch's AveragedModel with the same decay, of the same steps, BatchNorm's statistics included."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    ours = WeightAverage(network, 0.5)
    decays = iter([0.1, 2 / 11, 3 / 12, 4 / 13])

    # AveragedModel's first update copies the weights, where ours begins with the initial ones.
    def average(old: torch.Tensor, new: torch.Tensor, _: object) -> torch.Tensor:
        return old.lerp(new, 1 - next_decay) if old.is_floating_point() else new

    theirs = AveragedModel(network, avg_fn=average, use_buffers=True)
    theirs.update_parameters(network)
    for step in range(4):
        for tensor in network.parameters():
            tensor.data.add_(0.1 * (step + 1))
        network(torch.randn(2, 3, 8, 8))
        next_decay = next(decays)
        theirs.update_parameters(network)
        ours.update(step)
    expected = theirs.module.state_dict()
    assert ours.state_dict().keys() == expected.keys()
    for name, tensor in ours.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, expected[name])
    assert int(ours.state_dict()["1.num_batches_tracked"]) == 4


def test_the_averaged_weights_are_evaluated_and_kept_and_training_goes_on_with_its_own(
    small: Callable[..., Config],
) -> None:
    config = small(train__ema_decay=0.9)
    learner = Learner(config, load(config).train)
    for step in range(3):
        learner.step(step, 0.01)
    own = learner.copy_weights()
    assert learner.average is not None
    averaged = {name: tensor.clone() for name, tensor in learner.average.state_dict().items()}
    with learner.with_evaluated_weights():
        inside = learner.copy_weights()
    after = learner.copy_weights()
    for name in own:
        assert torch.equal(inside[name], averaged[name])
        assert torch.equal(after[name], own[name])
    assert not torch.equal(own["classifier.weight"], averaged["classifier.weight"])


def test_a_state_without_the_average_is_refused(small: Callable[..., Config]) -> None:
    run = new_run(small(train__ema_decay=0.9))
    assert execute(run, 4) == "stopped"
    rewrite_newest(run, lambda state: {**state, "average": {}})
    with pytest.raises(CheckpointError, match="averaged weights are not those of this network"):
        execute(run)


def test_weight_decay_leaves_out_biases_and_normalisation_if_asked(small: Callable[..., Config]) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    options = small(train__optimizer={"weight_decay": 0.1, "decay_norm_bias": False}).train.optimizer
    decayed = {
        id(parameter): group["weight_decay"]
        for group in make_optimizer(network.parameters(), options).param_groups
        for parameter in group["params"]
    }
    found = {name: decayed[id(parameter)] for name, parameter in network.named_parameters()}
    assert found == {"0.weight": 0.1, "0.bias": 0, "1.weight": 0, "1.bias": 0, "2.weight": 0.1, "2.bias": 0}


def test_the_loss_is_torchs_with_smoothed_labels(small: Callable[..., Config]) -> None:
    config = small(train__label_smoothing=0.2)
    loss, logits, labels = Learner(config, load(config).train).step(0, 0.01)
    torch.testing.assert_close(loss, functional.cross_entropy(logits, labels, label_smoothing=0.2))


def test_an_overfit_test_is_not_smoothed(small: Callable[..., Config]) -> None:
    config = small(train__label_smoothing=0.2, train__overfit_small=True, train__overfit_size=8)
    loss, logits, labels = Learner(config, load(config).train).step(0, 0.01)
    torch.testing.assert_close(loss, functional.cross_entropy(logits, labels))


def test_a_flipped_evaluation_averages_the_probabilities_of_both_images(small: Callable[..., Config]) -> None:
    config = small(metrics__test_time_flip=True)
    data = load(config)
    network = Learner(config, data.train).network
    part = data.train
    assert len(part) % evaluation_batch(CPU) != 0
    assert len(part) > evaluation_batch(CPU), "several batches, and a smaller last one"
    measured = evaluate_split(network, part, config, CPU, lambda: False)
    assert measured is not None
    images, labels = part.take(torch.arange(len(part)))
    scale = config.preprocess.normalize
    inputs = (images.float() / 255 - torch.tensor(scale.mean)[:, None, None]) / torch.tensor(scale.std)[:, None, None]
    with torch.inference_mode():
        mean = (network(inputs).softmax(1) + network(inputs.flip(-1)).softmax(1)) / 2
    assert measured[0]["loss"] == pytest.approx(float(functional.nll_loss(mean.log(), labels)), rel=1e-5)
    assert measured[1].predicted.tolist() == mean.argmax(1).tolist()


def test_the_recipe_is_a_valid_configuration_within_the_limits_of_the_report() -> None:
    recipe, report = (load_config(ROOT / "configs" / name) for name in ("recipe.yaml", "config.yaml"))
    assert recipe.train.epochs <= report.train.epochs
    with torch.device("meta"):
        # The recipe leaves to the data what the report's configuration gives.
        model = recipe.model.model_copy(
            update={name: getattr(report.model, name) for name in ("num_classes", "input_shape")}
        )
        ours, theirs = (count_parameters(build_model(each)) for each in (model, report.model))
    assert ours <= theirs
