"""Keys: equal for runs with the same result, and for them alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from src.config import keys
from src.config.keys import EVALUATION, LR_SWEEP, TRAINING, Facts
from src.config.loading import load_config, make_config
from src.config.schema import Config
from src.requests import grid_request
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("facts", "key"), [(TRAINING, "5579900aabbc61c2"), (LR_SWEEP, "d37df55c5d1ba790"), (EVALUATION, "2693c885d63dc9e6")]
)
def test_keys_stay_what_they_are(facts: Facts, key: str) -> None:
    """Literal keys: a changed one would orphan the checkpoints, sweeps and forecasts on users' disks."""
    content = load_config(ROOT / "configs" / "config.yaml").to_dict()
    assert facts.key(content) == key


@pytest.mark.parametrize("section", ["train", "model", "evaluation"])
def test_a_new_option_changes_no_key_of_a_run_that_leaves_it_at_its_default(
    section: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content: dict[str, Any] = Config().to_dict()
    facts = EVALUATION if section == "evaluation" else TRAINING
    before = facts.key(content)
    monkeypatch.setattr(keys, "content_of", lambda model: model)
    defaults = keys._DEFAULTS
    new = {section: {**defaults[section], "new": {"a": 1, "b": None}}}
    monkeypatch.setattr(keys, "_DEFAULTS", {**defaults, **new})
    content[section]["new"] = {"a": 1, "b": None}
    assert facts.key(content) == before
    content[section]["new"] = {"a": 2, "b": None}
    other = facts.key(content)
    content[section]["new"] = {"a": True, "b": None}
    assert len({before, other, facts.key(content)}) == 3


def test_a_folder_of_images_has_one_key_from_every_folder(
    small: Callable[..., Config], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "images").mkdir()
    monkeypatch.chdir(tmp_path)
    relative, absolute = (grid_request(small(dataset__name=n)).key for n in ("./images", str(tmp_path / "images")))
    assert relative == absolute


def test_a_run_is_one_unit_of_work_where_steps_end_it(small: Callable[..., Config]) -> None:
    assert TRAINING.units(small(train__max_steps=5)) == 1.0
    assert TRAINING.units(small()) == 3.0


def test_what_takes_the_same_time_has_one_cost_key(small: Callable[..., Config]) -> None:
    plain = make_config(small().to_dict(), "test")
    assert TRAINING.cost_key(plain) == TRAINING.cost_key(small(train__seed=3, train__optimizer__lr=0.5))
    others = (
        small(train__batch_size=8),
        small(model__num_modules=2),
        small(dataset__synthetic_seed=0, train__max_steps=4),
    )
    assert len({TRAINING.cost_key(each) for each in (plain, *others)}) == 4
