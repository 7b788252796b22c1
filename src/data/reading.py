"""A data set in a folder, read with datasets: its splits, and the checks that they are whole and all in the folder.

Importing this module imports neither datasets nor PIL.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from relay.errors import DataError
from relay.text import brief
from src.config.schema import Dataset, Split
from src.data.columns import Labels, check_columns, read_labels
from src.data.decoding import Batch, Encoded, EncodedSplit


class Opened(NamedTuple):
    """The class names, the splits that were asked for, and the names of the splits that the source also has."""

    class_names: list[str]
    splits: Sequence[EncodedSplit]
    others: list[str]


def read_folder(
    folder: Path, shown: str, dataset: Dataset, scratch: Path, *, whole: bool, linked: Path | None = None
) -> Opened:
    """Read the splits that `dataset` names from `folder`, which messages call `shown`; temporary files go to `scratch`.

    `whole`: check the number of images against the data set card, if it gives one. `linked`: a folder around it that
    its files may link into. Raises DataError if the folder is incomplete, or names files outside of it.
    """
    folder, names = folder.absolute(), dataset.split.names
    with _reading(shown):
        builder, files = _builder(folder, names, scratch, whole=whole)
        for name in names:
            _check_inside(folder, files.get(name, ()), shown)
            _check_shards(files.get(name, ()), f"{shown}, split {name!r}")
        builder.download_and_prepare(verification_mode="basic_checks" if whole else "no_checks")
        found = builder.as_dataset()
    there = sorted({*found, *_unlisted(folder, {file for paths in files.values() for file in paths})})
    for name in names:
        if name not in found:
            raise DataError(no_split(shown, dataset.split, name, there, f"data/{name}-*.parquet"))
        check_columns(found[name].features, dataset.columns, f"{shown}, split {name!r}")
    class_names, labels = read_labels({name: found[name] for name in names}, dataset.columns.label, shown)
    splits = [
        _TableSplit(name, shown, found[name].select_columns(dataset.columns.image), its, folder, linked or folder)
        for name, its in zip(names, labels, strict=True)
    ]
    return Opened(class_names, splits, [name for name in there if name not in names])


def count_rows(folder: Path, shown: str, dataset: Dataset, *, whole: bool) -> int | None:
    """How many rows the splits that `dataset` names have; None if they are of another format than parquet.

    Only the end of each file is read, which says so. Raises DataError if that cannot be done.
    """
    import pyarrow.parquet as pq

    with _reading(shown), tempfile.TemporaryDirectory() as scratch:
        _, files = _builder(folder.absolute(), dataset.split.names, Path(scratch), whole=whole)
        for name in dataset.split.names:
            if name not in files:
                raise DataError(no_split(shown, dataset.split, name, sorted(files), f"data/{name}-*.parquet"))
        paths = [path for name in dataset.split.names for path in files[name]]
        if not all(path.endswith(".parquet") for path in paths):
            return None
        rows: list[int] = [pq.read_metadata(path).num_rows for path in paths]
        return sum(rows)


def _builder(folder: Path, names: Sequence[str], scratch: Path, *, whole: bool) -> tuple[Any, dict[str, list[str]]]:
    """What datasets reads the folder with, and the files of each split."""
    import datasets

    builder = datasets.load_dataset_builder(
        str(folder),
        data_files=None if whole else _files_by_split(folder, names),
        # Not in the home folder; the Arrow files are needed only until the images are decoded.
        cache_dir=str(scratch / "arrow"),
    )
    return builder, {str(split): list(paths) for split, paths in (builder.config.data_files or {}).items()}


@contextlib.contextmanager
def _reading(shown: str) -> Iterator[None]:
    """Without the progress bars of datasets, and with its errors as DataError."""
    import datasets

    # Bars would fill the logs of jobs.
    with_bars = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        several = re.search(r"among the available configs: \[(.*)\]", str(error))
        if several:
            raise DataError(
                f"{shown}: has several configurations in its README.md: {several[1].replace(chr(39), '')}; Relay reads "
                "one: copy the files of that one into a folder, and set dataset.name to it"
            ) from None
        raise DataError(f"{shown}: cannot be read as a data set: {brief(error)}; {_LAYOUT}") from None
    finally:
        if not with_bars:
            datasets.enable_progress_bars()


class _TableSplit(EncodedSplit):
    """A table of one column, which has the images.

    A row may name a file in place of its bytes, in `folder` or, through links, in `linked`.
    """

    def __init__(self, name: str, where: str, images: Any, labels: Labels, folder: Path, linked: Path) -> None:
        import datasets

        super().__init__(name, where)
        self._labels, self._folder, self._linked = labels, folder, linked.resolve()
        (self._column,) = images.column_names
        # Encoded, so that a damaged image can be named, and 16 bits and transparency are treated as `decode` does.
        self._images = images.cast_column(self._column, datasets.Image(decode=False))

    def __len__(self) -> int:
        return len(self._labels)

    def batches(self, size: int) -> Iterator[Batch]:
        for start, batch in zip(range(0, len(self), size), self._images.iter(batch_size=size), strict=True):
            images = [self._encoded(start + offset, image) for offset, image in enumerate(batch[self._column])]
            yield images, self._labels[start : start + size]

    def _encoded(self, index: int, image: dict[str, Any] | None) -> Encoded:
        """The image file's bytes, or the file that the row names. Raises DataError for others'."""
        if image is None:
            return None
        data: bytes | None = image["bytes"]
        if data is not None or image["path"] is None:
            return data
        # With its links followed: a data set must not bring other files of this machine into the images.
        path: Path = (self._folder / image["path"]).resolve()
        if not path.is_relative_to(self._linked) and not path.exists():
            raise DataError(
                f"{self.where}: split {self.name!r}, image {index} is the file {image['path']}, which is not on this "
                f"machine; copy it into {self._folder} and name it from there, or store its bytes in the row"
            )
        if not path.is_relative_to(self._linked):
            raise DataError(
                f"{self.where}: split {self.name!r}, image {index} is the file {image['path']}, which is outside of "
                f"{self._linked}; copy the file there, or store its bytes in the row"
            )
        if not path.is_file():
            raise DataError(
                f"{self.where}: split {self.name!r}, image {index} is the file {image['path']}, which is not in "
                f"{self._folder}; copy it there, or store its bytes in the row"
            )
        return path


def no_split(shown: str, split: Split, name: str, there: Sequence[str], files: str = "") -> str:
    """The message that the source `shown` has no split `name`, but those in `there`; `files`: what its own would be."""
    key = next(key for key in ("train", "valid", "val", "test") if getattr(split, key) == name)
    # Never a split that another key names: its images would be trained on and measured.
    free = [each for each in there if each not in split.names]
    own = [f"set dataset.split.{key} to {' or '.join(free)}"] if free else []
    drawn = {
        "valid": f"set dataset.split.valid=null to draw val and test from {split.train!r}",
        **dict.fromkeys(("val", "test"), f"set dataset.split.{key} to a number or share of images to draw"),
    }
    added = [f"add its files as {files}, with images that no other split has"] if files and not free else []
    advice = ", or ".join([*own, *([drawn[key]] if key in drawn else []), *added])
    return f"{shown}: there is no split {name!r}, only {', '.join(there) or 'none'}; {advice}"


def _files_by_split(folder: Path, names: Sequence[str]) -> dict[str, list[str]] | None:
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
        alike = [word for word in found if {word, name} <= VALIDATION]
        if name not in found and len(alike) == 1:
            found[name] = found[alike[0]]
    return {name: found[name] for name in names} if found.keys() >= set(names) else None


def _first_word(name: str) -> str:
    return re.split(r"[-._ 0-9]", name)[0]


def _unlisted(folder: Path, listed: set[str]) -> set[str]:
    """What may be further splits: the first words of parquet files that are not `listed`, and of their folders."""
    paths = [path.relative_to(folder) for path in folder.rglob("*.parquet") if str(path) not in listed]
    return {_first_word(part) for path in paths for part in path.parts} - {"", "data"}


VALIDATION = {"valid", "validation", "val", "dev"}
_LAYOUT = (
    "it needs parquet files data/train-*.parquet and data/valid-*.parquet with a column of images and one of labels, "
    "or images as <split>/<class>/*.jpg"
)
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
