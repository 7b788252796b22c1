from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from relay import figures
from relay.errors import RunError
from relay.figures import PALETTE, Curve, draw_curves, drawing, label_of, new_figure, save_figure
from relay.log import log
from src.checking import figures as check_figures
from src.evaluation import figures as evaluation_figures
from src.outcomes import rates as lr_figures


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
        ("val/accuracy", "val accuracy (share of examples)"),
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


# What users may call a class, a cell or a sweep.
NAMES = (
    *("Ba$$in", "$x", "a$b_c$d", r"$\frac{1$", "cost in $ and $", r"\$", "%s {0} ^", "_hidden"),
    *("猫", "🦊 fox", "two\nlines", "\x1b[31mred", "x" * 500, ""),
)


def draw_classes(names: Sequence[str], path: Path) -> Path | None:
    rows = [{"label": n, "name": name, "train": 3, "val": 2, "test": 0} for n, name in enumerate(names)]
    return check_figures.draw_class_counts(rows, path)


def draw_examples(names: Sequence[str], path: Path) -> Path | None:
    image = np.zeros((8, 8, 3), np.float32)
    return check_figures.draw_examples([check_figures.Example(image, [image], 0) for _ in names], names, path)


def draw_confusion(names: Sequence[str], path: Path) -> Path | None:
    return evaluation_figures.draw_confusion(np.eye(len(names)).tolist(), names, path)


def draw_pairs(names: Sequence[str], path: Path) -> Path | None:
    pairs = [{"true_name": name, "predicted_name": name, "n": 1} for name in names]
    images = [[(np.zeros((8, 8, 3), np.uint8), 0.5)] for _ in names]
    return evaluation_figures.draw_confused_pairs(pairs, images, path)


def draw_named_curves(names: Sequence[str], path: Path) -> Path | None:
    return draw_curves(path, [Curve(name, [1, 2], [1, 2]) for name in names], names[0], names[0], title=names[0])


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were saved."""
    found: list[Figure] = []
    for module in (figures, check_figures, evaluation_figures, lr_figures):

        def save(figure: Figure, path: Path) -> Path:
            found.append(figure)
            return save_figure(figure, path)

        monkeypatch.setattr(module, "save_figure", save)
    return found


@pytest.mark.parametrize("draw", [draw_classes, draw_examples, draw_confusion, draw_pairs, draw_named_curves])
def test_any_name_is_drawn_as_it_is(
    draw: Callable[[Sequence[str], Path], Path | None],
    tmp_path: Path,
    saved: list[Figure],
    caplog: pytest.LogCaptureFixture,
) -> None:
    log.addHandler(caplog.handler)
    for name in NAMES:
        assert draw([name, "other"], tmp_path / "a.png") == tmp_path / "a.png", name
        texts = saved[-1].findobj(Text)
        assert any(name in text.get_text() for text in texts)
        assert not any(text.get_parse_math() for text in texts)
    log.removeHandler(caplog.handler)
    assert caplog.records == []


def test_a_name_that_begins_with_an_underscore_is_in_the_legend(tmp_path: Path, saved: list[Figure]) -> None:
    draw_curves(tmp_path / "a.png", [Curve("_mine", [1, 2], [1, 2]), Curve("other", [1, 2], [1, 2])], "x", "y")
    (legend,) = (axes.get_legend() for axes in saved[-1].axes)
    assert legend
    assert [text.get_text() for text in legend.get_texts()] == [" _mine", "other"]


@pytest.mark.parametrize("seeds", [1, 2])
def test_rates_are_plain_text(tmp_path: Path, saved: list[Figure], seeds: int) -> None:
    rates = [10 ** (-7 + 0.1 * step) for step in range(70)]
    result = {"lr": rates, "loss": [2.0] * 70, "loss_smoothed": [2.0] * 70, "suggestion": {"steepest": 1e-3}}
    assert lr_figures.draw_lr_sweep([{**result, "seed": seed} for seed in range(seeds)], tmp_path / "a.png")
    labels = [label.get_text() for label in saved[-1].axes[0].get_xticklabels()]
    assert "1e\N{MINUS SIGN}03" in labels
    assert not any("$" in label for label in labels)


def test_a_figure_that_cannot_be_drawn_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for error in (ValueError("bad text"), MemoryError(), OSError(28, "No space left on device"), KeyError("x")):

        def save(figure: Figure, path: Path, error: Exception = error) -> Path:
            raise error

        monkeypatch.setattr(check_figures, "save_figure", save)
        path = tmp_path / "a.png"
        path.write_bytes(b"of an earlier call")
        assert draw_classes(["a", "b"], path) is None
        assert f"warning: {path}: this figure is missing" in capsys.readouterr().err
        assert not path.exists()


def test_damaged_data_is_still_an_error(tmp_path: Path) -> None:
    @drawing
    def draw(path: Path) -> Path | None:
        raise RunError("metrics.jsonl: line 3 is damaged")

    with pytest.raises(RunError, match="line 3"):
        draw(tmp_path / "a.png")


def test_figures_are_saved_in_other_words(tmp_path: Path) -> None:
    seen: list[str] = []

    def change(text: str) -> str:
        seen.append(text)
        return text.replace("epoch", "époque")

    def draw(name: str) -> bytes:
        figure = figures.new_figure()
        axes = figure.add_subplot()
        axes.plot([0, 1], [0.5, 1.5])
        axes.set(xlabel="epoch")
        return figures.save_figure(figure, tmp_path / name).read_bytes()

    plain = draw("a.png")
    with figures.reworded(change):
        assert draw("b.png") != plain
    assert {"epoch", "0.6", "1.4"} <= set(seen)
    assert draw("c.png") == plain
