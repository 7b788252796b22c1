from __future__ import annotations

import platform
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from relay.errors import ConfigError
from relay.program.states import list_states
from relay.runs.rundir import RunDir
from src.config.keys import TRAINING, content_key
from src.config.schema import Config
from src.data.dataset import load
from src.data.loader import TrainLoader
from src.training.numerics import Numerics
from tests.conftest import assert_same_run, final_state
from tests.training.test_trainer import execute, new_run

CPU = torch.device("cpu")


def numerics_of(run: RunDir) -> dict[str, Any] | None:
    found: dict[str, Any] | None = torch.load(list_states(run.checkpoints)[0], weights_only=True).get("numerics")
    return found


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("network", ["inception_multibranch", "residual_cnn"])
def test_a_run_resumes_exactly_in_each_precision_and_memory_format(
    small: Callable[..., Config], precision: str, network: str
) -> None:
    config = small(train__precision=precision, model__type=network)
    straight, resumed = new_run(config), new_run(config)
    assert execute(straight) == "done"
    for questions in (3, 5):
        assert execute(resumed, questions) == "stopped"
    assert execute(resumed) == "done"
    assert_same_run(straight, resumed)
    expected = {"precision": precision, "channels_last": network == "inception_multibranch", "compiled": False}
    assert numerics_of(straight) == expected


def test_the_precision_changes_the_numbers(small: Callable[..., Config]) -> None:
    fp32, bf16 = (new_run(small(train__precision=precision)) for precision in ("fp32", "bf16"))
    assert execute(fp32) == execute(bf16) == "done"
    assert final_state(fp32)["rows"] != final_state(bf16)["rows"]
    assert all(tensor.dtype != torch.bfloat16 for tensor in final_state(bf16)["best"].values())


def test_a_resumed_run_computes_as_it_began_whatever_is_chosen_now(
    small: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, resumed = new_run(small()), new_run(small())
    assert execute(straight) == "done"
    assert execute(resumed, 4) == "stopped"
    monkeypatch.setattr(Numerics, "chosen", lambda *_: Numerics("bf16"))
    assert execute(resumed) == "done"
    assert_same_run(straight, resumed)


def test_tf32_needs_a_gpu(small: Callable[..., Config]) -> None:
    with pytest.raises(ConfigError, match=r"train\.precision: tf32 needs an NVIDIA GPU, and the device is cpu"):
        Numerics.chosen(small(train__precision="tf32"), CPU)


def test_without_a_compiler_nothing_is_compiled_and_one_line_says_so(
    small: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert not Numerics.chosen(small(train__compile=True), CPU).compiled
    said = capsys.readouterr().err
    assert "train.compile: there is no C compiler on this machine" in said
    restored = Numerics.restored({"precision": "fp32", "channels_last": True, "compiled": True})
    assert restored == Numerics("fp32", channels_last=True)


def test_the_keys_of_runs_change_only_with_what_was_asked_for(small: Callable[..., Config]) -> None:
    plain, same, other = small(), small(train__precision="auto"), small(train__precision="bf16")
    compiled = small(train__compile=True)
    assert content_key(plain, TRAINING) == content_key(same, TRAINING)
    assert len({content_key(config, TRAINING) for config in (plain, other, compiled)}) == 3
    assert len({TRAINING.cost_key(config) for config in (plain, other, compiled)}) == 3


def test_batches_that_are_augmented_together_are_those_that_are_augmented_alone(small: Callable[..., Config]) -> None:
    jitter = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.1}
    config = small(augment={"random_flip": True, "random_crop": {"size": 16, "padding": 2}, "color_jitter": jitter})
    part = load(config).train
    alone, together = TrainLoader(config, part, CPU), TrainLoader(config, part, CPU)
    together._group = 4
    last = alone.per_epoch - 1
    for epoch, batch in ((0, 0), (0, 1), (0, 4), (0, 3), (0, last), (1, last), (1, 2)):
        for one, other in zip(alone.get(epoch, batch), together.get(epoch, batch), strict=True):
            assert torch.equal(one, other)


def test_numerics_are_restored_from_what_a_checkpoint_holds() -> None:
    chosen = Numerics("bf16", channels_last=True)
    assert Numerics.restored(chosen.to_state()) == chosen
    assert replace(chosen, precision="fp32") != chosen
    with pytest.raises(TypeError):
        Numerics.restored({"format": "nhwc"})
    with pytest.raises(ValueError, match="unknown precision, 'fp8'"):
        Numerics.restored({"precision": "fp8"})


def test_a_training_keeps_the_memory_that_it_frees(small: Callable[..., Config]) -> None:
    """The kernel gives memory page by page, each of which is a fault."""
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("only glibc can be told to")
    assert execute(new_run(small(train__max_steps=1))) == "done"
    faults = []
    for _ in range(4):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(16 * 2**20)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    assert faults[-1] < 100, "64 MiB are 16,384 pages"
