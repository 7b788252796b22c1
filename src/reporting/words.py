"""Class names in words, where a data set names its classes by WordNet ids, as ImageNet and Tiny ImageNet do."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from relay.errors import RelayError
from relay.user import expanded
from src.config.schema import Dataset

_ID = re.compile(r"n\d{8}")
# `n01443537<tab or space>goldfish, Carassius auratus` in each line, as the two data sets have it.
_FILES = ("words.txt", "LOC_synset_mapping.txt")


def words_of(dataset: Dataset, names: Iterable[str]) -> dict[str, str]:
    """WordNet id -> its first word, for those that are ids; from the files of the data set, if it has them."""
    wanted = {name for name in names if _ID.fullmatch(name)}
    if not wanted:
        return {}
    for file in _candidates(dataset):
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            continue
        pairs = (line.split(maxsplit=1) for line in lines)
        return {pair[0]: pair[1].partition(",")[0].strip() for pair in pairs if len(pair) == 2 and pair[0] in wanted}
    return {}


def _candidates(dataset: Dataset) -> Iterable[Path]:
    try:
        folders = [expanded(dataset.name), expanded(dataset.root)]
    except RelayError:
        return []
    # Its folder may be that of a part, such as train.
    return [folder / name for place in folders for folder in (place, place.parent) for name in _FILES]
