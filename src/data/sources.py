"""Where images come from: the table of data sources, and which of them `dataset.name` means.

Importing this module imports neither datasets nor PIL nor torchvision.

To add a source: a file beside this one and an entry in SOURCES.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relay.errors import DataError
from src.config.schema import Config, Dataset
from src.data import folder, function, hub, synthetic, torchvision_sets
from src.data.reading import Opened


def _same(name: str) -> str:
    return name


def _nothing_more(config: Config) -> None:
    return None


@dataclass(frozen=True)
class DataSource:
    """A kind of place that images come from. All functions but `recognizes` raise DataError if it has no such images.

    `kind`: what `dataset.source` calls it.
    `named_by`: the values of `dataset.name` that mean it, in the words of messages.
    `recognizes`: whether `dataset.name` means it where `dataset.source` is auto.
    `locate`: the name in full, independent of the current folder.
    `identity`: what the decoded images depend on besides kind and name, as plain values.
    `open_splits`: reads the splits of the configuration, in the order of `Split.names`; temporary files go to the given
    folder.
    `count`: how many images the splits of the configuration have, without reading them; None if that is not known.
    `contents`: a digest of the content of all files; None if kind, name and identity decide it.
    `replaced`: what another digest means.
    `label`: the readable part of the cache folder's name, from the name in full.
    `own_process`: whether it is opened in a process of its own, because it imports torch or a user's code.
    `options`: the keys of the `dataset` section that only this source reads.
    """

    kind: str
    named_by: str
    recognizes: Callable[[str], bool]
    locate: Callable[[str], str]
    identity: Callable[[Config], dict[str, Any]]
    open_splits: Callable[[Config, Path], Opened]
    count: Callable[[Config], int | None] = _nothing_more
    contents: Callable[[Config], str | None] = _nothing_more
    replaced: str = "the files of the source were replaced by others of the same sizes and times"
    label: Callable[[str], str] = _same
    own_process: bool = False
    options: tuple[str, ...] = ()


# A name means the first source that recognizes it.
_IN_ORDER = (
    DataSource(
        kind="synthetic",
        named_by=synthetic.NAME,
        recognizes=synthetic.recognizes,
        locate=synthetic.locate,
        identity=synthetic.identity,
        open_splits=synthetic.open_splits,
        count=synthetic.count,
        options=synthetic.OPTIONS,
    ),
    DataSource(
        kind="torchvision",
        named_by="a data set of torchvision such as torchvision/CIFAR10",
        recognizes=torchvision_sets.recognizes,
        locate=torchvision_sets.locate,
        identity=torchvision_sets.identity,
        open_splits=torchvision_sets.open_splits,
        contents=torchvision_sets.contents,
        replaced="its files may be other ones now",
        own_process=True,
    ),
    DataSource(
        kind="function",
        named_by="a function of your project such as my_data:load",
        recognizes=function.recognizes,
        locate=function.locate,
        identity=function.identity,
        open_splits=function.open_splits,
        contents=function.contents,
        replaced="the function may read something else now",
        own_process=True,
    ),
    DataSource(
        kind="folder",
        named_by="a folder",
        recognizes=folder.recognizes,
        locate=folder.locate,
        identity=folder.identity,
        open_splits=folder.open_splits,
        count=folder.count,
        contents=folder.contents,
        label=folder.label,
    ),
    DataSource(
        kind="hub",
        named_by="a Hub name such as zh-plus/tiny-imagenet",
        recognizes=hub.recognizes,
        locate=hub.locate,
        identity=hub.identity,
        open_splits=hub.open_splits,
        count=hub.count,
        options=("revision",),
    ),
)
SOURCES = {source.kind: source for source in _IN_ORDER}


def source_of(dataset: Dataset) -> DataSource:
    """The source that `dataset.source` and `dataset.name` mean. Raises DataError if there is none, or more than one."""
    if dataset.source in SOURCES:
        return SOURCES[dataset.source]
    if dataset.source != "auto":
        raise DataError(f"dataset.source: {dataset.source!r} is not a source; choose auto, {', '.join(SOURCES)}")
    for source in SOURCES.values():
        if source.recognizes(dataset.name):
            return source
    choices = ", ".join(source.named_by for source in SOURCES.values())
    raise DataError(f"dataset.name: {dataset.name!r} means no data set here; set it to one of: {choices}")
