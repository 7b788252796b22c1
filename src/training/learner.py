"""What a run trains: a network, the average of its weights and its optimizer, with the batches that they learn from, on
one device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import get_ema_multi_avg_fn

from relay.program.generators import global_states, random_state, set_global_states, set_random_state
from src.config.schema import Config
from src.config.train_section import OPTIMIZERS
from src.data.dataset import ImageSubset
from src.data.loader import TrainLoader
from src.data.mixing import draw_mix
from src.models.registry import build_model, count_parameters, is_ours
from src.training.device import choose_device, compute_reproducibly, reuse_freed_memory
from src.training.numerics import Numerics
from src.training.optim import make_optimizer


class Learner:
    """The network, optimizer and training batches of a configuration, built from `train.seed`."""

    def __init__(self, config: Config, part: ImageSubset) -> None:
        self.config = config
        self.device = choose_device(config.train.device)
        # Before the network is built: its weights come from torch's global generator.
        compute_reproducibly(config.train.seed)
        reuse_freed_memory()
        # Networks that are not ours may use operations whose usual kernels on a GPU add in any order.
        torch.use_deterministic_algorithms(not is_ours(config.model.type), warn_only=True)
        self.loader = TrainLoader(config, part, self.device)
        self.network = build_model(config.model, config.project.path).to(self.device)
        self._compute(Numerics.chosen(config, self.device))
        self.optimizer = make_optimizer(
            self.network.parameters(), config.train.optimizer, self.device, config.project.path
        )
        decay = config.train.ema_decay
        self.average = WeightAverage(self.network, decay) if decay else None
        self._label_smoothing = 0.0 if config.train.overfit_small else config.train.label_smoothing

    def _compute(self, numerics: Numerics) -> None:
        self.numerics, self.forward = numerics, numerics.prepare(self.network)

    def step(self, step: int, lr: float) -> tuple[Tensor, Tensor, Tensor]:
        """Optimizer step `step` (0-based) with learning rate `lr`, on the batch with this number.

        Returns the mean loss before the update, float32 (), the logits (B, classes) and the labels (B,), all on the
        device, so that the host need not wait for them. The loss is the cross-entropy; with `train.label_smoothing`,
        `mixup` and `cutmix`, that against the smoothed and mixed labels. The labels are those before the mixture.
        """
        epoch, batch = divmod(step, self.loader.per_epoch)
        images, labels = self.loader.get(epoch, batch)
        mix = draw_mix(self.config.train, self.config.preprocess.resize, epoch=epoch, batch=batch)
        if mix is not None:
            images = mix.images(images)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        logits = self.forward(images)
        loss_of = partial(functional.cross_entropy, logits, label_smoothing=self._label_smoothing)
        loss = loss_of(labels) if mix is None else mix.loss(loss_of, labels)
        # Tensor.backward, which calls this, has no type hints.
        torch.autograd.backward(loss)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(step)
        return loss.detach(), logits.detach(), labels

    def with_evaluated_weights(self) -> AbstractContextManager[None]:
        """A block in which the network has the weights that are evaluated and kept: averaged with `train.ema_decay`."""
        return nullcontext() if self.average is None else self.average.in_place()

    def parameter_count(self) -> int:
        """The number of trainable parameters."""
        return count_parameters(self.network)

    def copy_weights(self) -> dict[str, Tensor]:
        """A copy of the network's state dict on the CPU, which later steps do not change."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self.network.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimizer, torch's random generators, and how the run computes, as a checkpoint holds them."""
        return {
            "threads": torch.get_num_threads(),
            "numerics": self.numerics.to_state(),
            "model_state_dict": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            **({} if self.average is None else {"average": self.average.state_dict()}),
            **self.generators(),
        }

    def generators(self) -> dict[str, Any]:
        """The states of the random generators that the run may draw from, as a checkpoint holds them."""
        # The user's code may draw from those of Python and numpy as well.
        own = {"generators": global_states()} if self.config.own_code else {}
        return {"random": random_state(self.device), **own}

    def set_generators(self, state: Mapping[str, Any]) -> None:
        """Restore what `generators` returned."""
        if "generators" in state:
            set_global_states(state["generators"])
        set_random_state(state["random"], self.device)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned. If it does not fit, raises what torch raises, or ValueError."""
        # The number of CPU threads decides how sums are rounded, so the run keeps the one that it began with.
        torch.set_num_threads(state["threads"])
        self._compute(Numerics.restored(state["numerics"]))
        self.network.load_state_dict(state["model_state_dict"])
        self._load_optimizer(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.set_generators(state)

    def _load_optimizer(self, state: Mapping[str, Any]) -> None:
        """Restore the optimizer. Raises ValueError if the state is of another kind of optimizer."""
        own = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict(dict(state))
        # torch takes over any options and moments; a wrong one would fail, or train wrongly, at a later step.
        for group, fresh in zip(self.optimizer.param_groups, own, strict=True):
            changed = [
                name for name, value in fresh.items() if name != "params" and type(group[name]) is not type(value)
            ]
            if changed:
                raise ValueError(f"{changed[0]} of the optimizer is {group[changed[0]]!r:.80}")
        if self.config.train.optimizer.name not in OPTIMIZERS:
            # Others may keep anything: sums of rows and columns, whole histories.
            return
        for parameter, moments in self.optimizer.state.items():
            sizes = [value.shape for value in moments.values() if isinstance(value, Tensor) and value.dim()]
            if any(size != parameter.shape for size in sizes):
                raise ValueError(f"the optimizer keeps {list(sizes[0])} for weights of {list(parameter.shape)}")


class WeightAverage:
    """average = d * average + (1 - d) * weights after every step, also of BatchNorm's statistics.

    d is min(decay, (1 + step) / (10 + step)), so that the first, random weights are soon forgotten; this is the rule of
    tf.train.ExponentialMovingAverage. torch's AveragedModel is not used: it reads a counter from the device each step.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._network, self._decay = network, decay
        self._values = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}

    def update(self, step: int) -> None:
        """Count the weights after step `step` (0-based)."""
        decay = min(self._decay, (1 + step) / (10 + step))
        averaged, current = [], []
        for name, tensor in self._network.state_dict().items():
            if tensor.is_floating_point():
                averaged.append(self._values[name])
                current.append(tensor)
            else:
                self._values[name].copy_(tensor)
        # torch's function has no type hints.
        update = cast(Callable[..., None], get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]
        update(averaged, current, step)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside the block, the network has the averaged weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, tensor in self._network.state_dict().items():
            own = tensor.clone()
            tensor.copy_(self._values[name])
            self._values[name].copy_(own)

    def state_dict(self) -> dict[str, Tensor]:
        """The averages by the names of the network's state dict."""
        return self._values

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned. Raises ValueError if it is not of this network."""
        shapes = {name: (tensor.shape, tensor.dtype) for name, tensor in self._values.items()}
        if {name: (tensor.shape, tensor.dtype) for name, tensor in state.items()} != shapes:
            raise ValueError("the averaged weights are not those of this network")
        for name, tensor in state.items():
            self._values[name].copy_(tensor)
