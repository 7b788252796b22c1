"""`python -m src.checks --config C`: checks the data and the model before any training, with numbers and pictures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.cli import ConfigOption, SetOption, overrides_of, run_command
from src.log import log

if TYPE_CHECKING:
    from torch import Tensor

_EXAMPLES = 6


def main(config: ConfigOption = "configs/config.yaml", set_: SetOption = None) -> None:
    """Show class counts, image modes and sizes, examples, batch shape, baselines, initial loss and gradient norm."""
    from src.config.loading import load_config
    from src.config.yaml_file import json_text
    from src.files import replace_file
    from src.runs.kinds import content_key
    from src.training.sanity import measure, verdicts

    loaded = load_config(config, overrides_of(set_))
    # A folder per experiment, so that the checks of one do not overwrite those of another.
    folder = Path(loaded.paths.artifacts_dir) / "checks" / f"{Path(config).stem}-{content_key(loaded, 'train')[:8]}"
    log.info(f"reading {loaded.dataset.name}")
    report, examples, names = measure(loaded, _EXAMPLES)
    results = verdicts(report)
    _print(report, results)
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / "checks.json", json_text(report))
    files = [
        folder / "checks.json",
        _draw_classes(report["class_counts"], folder),
        _draw_examples(examples, names, folder),
    ]
    for path in files:
        print(f"wrote {path}")
    # 1, as for a defect: the call was right, but the data or the model is not.
    if not all(holds for holds, _ in results):
        sys.exit(1)


def _print(report: dict[str, Any], results: Any) -> None:
    batch, counts = report["batch"], report["class_counts"]
    print(f"D1   {report['dataset']}, {report['classes']} classes, input {report['input_shape']}")
    print("D2   " + ", ".join(f"{name} {count}" for name, count in report["splits"].items()))
    print(f"D4   images per class in train: {min(counts)} to {max(counts)}")
    for name, facts in report["source"].items():
        changes = f", changed {facts['changes']}" if facts["changes"] else ""
        print(
            f"D5   {name} as it came: {facts['count']} images, modes {facts['modes']}, sizes {facts['sizes']}{changes}"
        )
    print(f"D11  batch: images {batch['images']}, labels {batch['labels']}, logits {batch['logits']}")
    for name, base in report["baselines"].items():
        print(
            f"M0   {name}: majority class {base['majority_accuracy']:.4f}, "
            f"guesses of one random draw {base['random_accuracy']:.4f}, chance {base['chance']:.4f}"
        )
    print(f"M1   parameters: {batch['parameters']:,}")
    print(f"M2   initial loss {batch['initial_loss']:.4f}, gradient norm {batch['gradient_norm']:.4f}")
    for holds, what in results:
        print(f"{'ok  ' if holds else 'FAIL'} {what}")


def _draw_classes(counts: list[int], folder: Path) -> Path:
    from src.results.figures import new_figure, save_figure, whole_ticks

    figure = new_figure()
    axes: Any = figure.add_subplot()
    whole_ticks(axes)
    axes.bar(range(len(counts)), counts, width=0.9)
    axes.set(xlabel="class", ylabel="training images", title="images per class", ylim=(0, max(counts) * 1.1))
    return save_figure(figure, folder / "class_distribution.png")


def _draw_examples(examples: list[tuple[Tensor, Tensor, int]], names: tuple[str, ...], folder: Path) -> Path:
    from src.results.figures import new_figure, save_figure

    figure = new_figure(1.5 * len(examples), 3.6)
    grid: Any = figure.subplots(2, len(examples), squeeze=False)
    for column, (before, after, label) in enumerate(examples):
        for row, (image, what) in enumerate(((before, names[label]), (after, "augmented"))):
            grid[row][column].imshow(image.permute(1, 2, 0).numpy())
            grid[row][column].set_title(what, fontsize="small")
            grid[row][column].axis("off")
    return save_figure(figure, folder / "examples.png")


if __name__ == "__main__":
    run_command(main)
