from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from src.results import figures
from src.results.figures import PALETTE, Curve, draw_curves, label_of, new_figure, save_figure


def curves(count: int) -> list[Curve]:
    return [Curve(f"k={n:03d}", range(20), [n + x / 10 for x in range(20)], faint=n > 0) for n in range(count)]


def test_the_same_data_gives_the_same_bytes_whatever_the_users_style_says(tmp_path: Path) -> None:
    first = draw_curves(tmp_path / "a.png", curves(3), "epoch", "val/accuracy")
    matplotlib.rcParams["font.size"] = 20
    second = draw_curves(tmp_path / "b.png", curves(3), "epoch", "val/accuracy")
    assert first.read_bytes() == second.read_bytes()
    with Image.open(first) as image:
        assert image.info.keys() & {"Software", "Creation Time", "date"} == set()


def test_a_figure_of_48_curves_is_a_small_opaque_card(tmp_path: Path) -> None:
    drawn = draw_curves(tmp_path / "a.png", curves(48), "epoch", "val/accuracy")
    with Image.open(drawn) as image:
        image.load()
    assert drawn.stat().st_size < 60_000
    assert image.mode == "P"
    assert image.convert("RGBA").getpixel((0, 0)) == (255, 255, 255, 255)


def test_a_photograph_keeps_its_colours(tmp_path: Path) -> None:
    figure = new_figure(2, 2)
    axes = figure.add_subplot()
    axes.imshow(np.random.default_rng(0).random((32, 32, 3)))
    with Image.open(save_figure(figure, tmp_path / "a.png")) as image:
        assert image.mode != "P"


def test_curves_that_are_only_there_for_comparison_are_counted_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[str] = []
    monkeypatch.setattr(figures, "_add_legend", lambda figure, axes: listed.extend(axes.get_legend_handles_labels()[1]))
    draw_curves(tmp_path / "a.png", curves(12), "epoch", "val/accuracy")
    assert listed == ["k=000", "the 11 others"]


@pytest.mark.parametrize(
    ("column", "label"),
    [
        ("val/accuracy", "val accuracy (share of images)"),
        ("train/loss_epoch", "train loss epoch (nats)"),
        ("num_modules", "num modules"),
        ("learning rate", "learning rate"),
    ],
)
def test_axes_name_their_units(column: str, label: str) -> None:
    assert label_of(column) == label


def lightness(colour: str) -> float:
    """The relative luminance of WCAG 2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("colour", PALETTE)
def test_every_colour_stands_out_on_white(colour: str) -> None:
    assert 1.05 / (lightness(colour) + 0.05) > 2
