"""A data set in a folder, read with datasets: its splits, and the checks that they are whole and all in the folder.

Importing this module imports neither datasets nor PIL.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from relay.errors import DataError
from relay.text import brief
from src.data.decoding import EncodedSplit


class Opened(NamedTuple):
    """The class names, the two splits that were asked for, and the names of the splits that the folder also has."""

    class_names: list[str]
    splits: list[EncodedSplit]
    others: list[str]


def read_folder(
    folder: Path, shown: str, names: tuple[str, str], scratch: Path, *, whole: bool, linked: Path | None = None
) -> Opened:
    """Read the splits `names` of `folder`, which messages call `shown`; temporary files go to `scratch`.

    `whole`: check the number of images against the data set card, if it gives one. `linked`: a folder around it that
    its files may link into. Raises DataError if the folder is incomplete, or names files outside of it.
    """
    import datasets

    folder = folder.absolute()
    # Bars would fill the logs of jobs.
    with_bars = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        builder = datasets.load_dataset_builder(
            str(folder),
            data_files=None if whole else _files_by_split(folder, names),
            # Not in the home folder; the Arrow files are needed only until the images are decoded.
            cache_dir=str(scratch / "arrow"),
        )
        files = {str(split): list(paths) for split, paths in (builder.config.data_files or {}).items()}
        for name in names:
            _check_inside(folder, files.get(name, ()), shown)
            _check_shards(files.get(name, ()), f"{shown}, split {name!r}")
        builder.download_and_prepare(verification_mode="basic_checks" if whole else "no_checks")
        found = builder.as_dataset()
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{shown}: cannot be read as a data set: {brief(error)}; {_LAYOUT}") from None
    finally:
        if not with_bars:
            datasets.enable_progress_bars()
    there = sorted({*found, *_unlisted(folder, {file for paths in files.values() for file in paths})})
    for key, name in zip(("train", "valid"), names, strict=True):
        if name not in found:
            raise DataError(_no_split(shown, key, name, there, names))
        _check_columns(found[name].features, f"{shown}, split {name!r}")
    classes = [found[name].features["label"].names for name in names]
    if classes[0] != classes[1]:
        raise DataError(f"{shown}: the splits {names[0]!r} and {names[1]!r} name different classes")
    splits = [EncodedSplit(name, shown, found[name], folder, linked or folder) for name in names]
    return Opened(classes[0], splits, [name for name in there if name not in names])


def _no_split(shown: str, key: str, name: str, there: Sequence[str], names: tuple[str, str]) -> str:
    # Never the split that the other key names: its images would be trained on and measured.
    free = [each for each in there if each not in names]
    advice = (
        f"set dataset.split.{key} to {' or '.join(free)}"
        if free
        else f"add its files as data/{name}-*.parquet, with images that no other split has"
    )
    return f"{shown}: there is no split {name!r}, only {', '.join(there)}; {advice}"


def _files_by_split(folder: Path, names: tuple[str, str]) -> dict[str, list[str]] | None:
    """Split -> its files in data/, matched by the first word of their names; None to let datasets decide.

    datasets renames the split of `valid-0.parquet` to validation, and misses it beside `train-00000-of-00001.parquet`.
    """
    card = folder / "README.md"
    if card.is_file() and "data_files" in card.read_text(errors="replace"):
        return None
    found: dict[str, list[str]] = {}
    for path in sorted((folder / "data").glob("*.parquet")):
        found.setdefault(_first_word(path.name), []).append(str(path))
    for name in names:
        alike = [word for word in found if {word, name} <= _VALIDATION]
        if name not in found and len(alike) == 1:
            found[name] = found[alike[0]]
    return {name: found[name] for name in names} if found.keys() >= set(names) else None


def _first_word(name: str) -> str:
    return re.split(r"[-._ 0-9]", name)[0]


def _unlisted(folder: Path, listed: set[str]) -> set[str]:
    """What may be further splits: the first words of parquet files that are not `listed`, and of their folders."""
    paths = [path.relative_to(folder) for path in folder.rglob("*.parquet") if str(path) not in listed]
    return {_first_word(part) for path in paths for part in path.parts} - {"", "data"}


_VALIDATION = {"valid", "validation", "val", "dev"}
_LAYOUT = "it needs parquet files data/train-*.parquet and data/valid-*.parquet with the columns image and label"
# `train-00000-of-00010`, with or without more of the name behind it.
_SHARD = re.compile(r"(?P<stem>.*?)(?P<number>\d{1,9})-of-(?P<total>\d{1,9})(?!\d)")


def _check_inside(folder: Path, files: Iterable[str], shown: str) -> None:
    """Raise DataError if the data set card names files elsewhere, of this machine or another."""
    for file in files:
        if "://" in file or not Path(os.path.normpath(file)).is_relative_to(folder):
            raise DataError(f"{shown}: its README.md names {file}, which is not in this folder; copy it there")


def _check_shards(files: Iterable[str], where: str) -> None:
    """Raise DataError unless files named `-of-N` are N, each number once, and no other file is among them."""
    shards: dict[str, dict[int, list[tuple[int, str]]]] = defaultdict(lambda: defaultdict(list))
    others: list[str] = []
    for file in files:
        name = Path(file).name
        match = _SHARD.match(name)
        if match:
            stem = str(Path(file).with_name(f"{match['stem']}_"))
            shards[stem][int(match["total"])].append((int(match["number"]), name))
        else:
            others.append(name)
    for by_total in shards.values():
        examples = [found[0][1] for found in by_total.values()]
        if len(by_total) > 1 or others:
            raise DataError(
                f"{where}: {' and '.join([*examples, *others][:2])} are from different versions of the split; "
                "remove the files of all but one"
            )
        ((total, found),) = by_total.items()
        _check_complete(total, found, where)


def _check_complete(total: int, found: Sequence[tuple[int, str]], where: str) -> None:
    numbers = Counter(number for number, _ in found)
    twice, copies = numbers.most_common(1)[0]
    if copies > 1:
        names = [name for number, name in found if number == twice]
        raise DataError(f"{where}: {names[0]} and {names[1]} have the same number; remove the file of the other copy")
    # Some programs count from 1.
    first = 0 if 0 in numbers or total not in numbers else 1
    expected = range(first, first + total)
    missing = next((number for number in expected if number not in numbers), None)
    if missing is not None:
        raise DataError(
            f"{where}: has {len(found)} of the {total} files that {found[0][1]} belongs to; number {missing} is "
            "missing; complete the copy or the download"
        )
    if len(found) > total:
        beyond = next(name for number, name in found if number not in expected)
        raise DataError(f"{where}: {beyond} is beyond the last of its {total} files; remove it")


def _check_columns(features: Mapping[str, Any], where: str) -> None:
    import datasets

    kinds = {"image": datasets.Image, "label": datasets.ClassLabel}
    for column in kinds:
        if column not in features:
            raise DataError(f"{where}: there is no column {column!r}, only {', '.join(features)}")
    for column, kind in kinds.items():
        if not isinstance(features[column], kind):
            found = type(features[column]).__name__
            raise DataError(f"{where}: the column {column!r} is of type {found}; it must be {kind.__name__}")
