"""Where images come from: the Hub, a local folder, or the synthetic generator. All three end as a folder, read one way.

A Hub data set is downloaded into <dataset.root>/hub and a synthetic one is written in the same layout; then
src/data/reading.py reads the folder. Importing this module imports neither datasets nor PIL.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from src.config.schema import Config, Dataset
from src.data import hub, synthetic
from src.data.reading import Opened, read_folder
from src.errors import DataError
from src.log import log
from src.user import expanded

_HUB_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*")


Kind = Literal["hub", "folder", "synthetic"]


@dataclass(frozen=True)
class Source:
    """`name` is the Hub name, the folder's full path, or "synthetic"."""

    kind: Kind
    name: str


def resolve(dataset: Dataset) -> Source:
    """The source that `dataset.name` means. Raises DataError if there is none, or more than one."""
    if dataset.source not in ("auto", *get_args(Kind)):
        known = ", ".join(get_args(Kind))
        raise DataError(f"dataset.source: {dataset.source!r} is not a source; choose auto, {known}")
    name, folder = dataset.name, expanded(dataset.name)
    if dataset.source == "synthetic" or (dataset.source == "auto" and name == "synthetic"):
        return Source("synthetic", "synthetic")
    is_hub_name = _HUB_NAME.fullmatch(name) is not None
    is_path = name.startswith(("/", "./", "../", "~")) or name in (".", "..") or name.count("/") > 1
    if dataset.source == "hub":
        if not is_hub_name:
            raise DataError(
                f"dataset.name: {name!r} is not a Hub name; write owner/name, such as zh-plus/tiny-imagenet"
            )
        return Source("hub", name)
    if dataset.source == "folder" or is_path or (folder.is_dir() and not is_hub_name):
        if not folder.is_dir():
            raise DataError(f"dataset.name: there is no folder {folder.absolute()}; {_CHOICES}")
        return Source("folder", str(folder.resolve()))
    if is_hub_name and folder.exists():
        raise DataError(
            f"dataset.name: {name!r} is a folder here and could be a Hub name; "
            f"set dataset.source=folder or dataset.source=hub, or write the folder as ./{name}"
        )
    if is_hub_name:
        return Source("hub", name)
    raise DataError(f"dataset.name: {name!r} is neither a folder nor a Hub name; {_CHOICES}")


_CHOICES = "set it to a folder, to a Hub name such as zh-plus/tiny-imagenet, or to synthetic"


def identity(config: Config, source: Source) -> dict[str, Any]:
    """Everything the images depend on, as plain values: equal if and only if the decoded data set would be the same."""
    dataset = config.dataset
    known: dict[str, Any] = {"source": source.kind, "name": source.name}
    if source.kind == "synthetic":
        return known | {"sizes": _synthetic_sizes(config)}
    known["splits"] = [dataset.split.train, dataset.split.valid]
    if source.kind == "hub":
        return known | {"revision": dataset.revision}
    return known | {"files": _fingerprint(Path(source.name), expanded(dataset.root).resolve())}


def _synthetic_sizes(config: Config) -> dict[str, int]:
    dataset = config.dataset
    classes = dataset.classes or config.model.num_classes
    if classes > synthetic.MAX_CLASSES:
        raise DataError(
            f"dataset.classes: synthetic has at most {synthetic.MAX_CLASSES} classes, not {classes}; "
            f"set model.num_classes={synthetic.MAX_CLASSES} or less"
        )
    return {
        "classes": classes,
        "train_per_class": dataset.synthetic_train_per_class,
        "valid_per_class": dataset.synthetic_valid_per_class,
        "seed": dataset.synthetic_seed,
        "version": synthetic.VERSION,
    }


def contents(config: Config, source: Source) -> str | None:
    """A digest of the content of every file of a folder; None for other sources, whose name decides their content.

    It reads all files: it is computed when they are decoded, and for --fresh.
    """
    if source.kind != "folder":
        return None
    digest = hashlib.sha256()
    for path, _ in _files(Path(source.name), Path(config.dataset.root).expanduser().resolve()):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _fingerprint(folder: Path, root: Path) -> str:
    """A digest of the relative path, size and modification time of every file that is not hidden.

    Sizes and times, not content: every command computes this, and reading all images would delay each one. A file that
    is replaced by one of the same size and time is not seen; `contents` sees it.
    """
    digest = hashlib.sha256()
    for path, facts in _files(folder, root):
        digest.update(json.dumps([str(path.relative_to(folder)), facts.st_size, facts.st_mtime_ns]).encode())
    return digest.hexdigest()


def _files(folder: Path, root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Every file of `folder` that is not hidden, in order, without Relay's own in dataset.root."""
    own = {root / "decoded", root / "hub"}
    for parent, subfolders, files in os.walk(folder, onerror=_cannot_read):
        subfolders[:] = sorted(name for name in subfolders if name[0] != "." and Path(parent, name) not in own)
        for name in sorted(name for name in files if name[0] != "."):
            path = Path(parent, name)
            try:
                facts = path.stat()
            except OSError as error:
                raise DataError(f"{path}: cannot be read: {error.strerror}") from None
            yield path, facts


def _cannot_read(error: OSError) -> None:
    raise DataError(f"{error.filename}: cannot be read: {error.strerror}")


def open_splits(config: Config, source: Source, names: tuple[str, str], scratch: Path) -> Opened:
    """The class names, the two splits `names`, and the names of the others; temporary files go to `scratch`.

    Raises DataError.
    """
    linked = None
    if source.kind == "hub":
        folder = hub.download(config.dataset)
        # The Hub's library keeps the content of a data set in blobs/, and links to it from snapshots/<revision>/.
        linked = folder.parent.parent
    elif source.kind == "synthetic":
        folder, names = scratch / "synthetic", ("train", "valid")
        log.info("generating the synthetic data set")
        synthetic.write(folder, **_synthetic_sizes(config))
    else:
        folder = Path(source.name)
    return read_folder(folder, source.name, names, scratch, whole=source.kind != "folder", linked=linked)
