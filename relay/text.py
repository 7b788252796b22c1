"""Phrases that several messages use, and texts of others that are safe to show."""

from __future__ import annotations

import re
from collections.abc import Sequence

# What moves the cursor, changes colours, or reorders what is read: control characters but line breaks and tabs, C1
# controls (a terminal may take U+009B for ESC [), marks of direction, invisible characters, and lone surrogates, which
# no encoding has. The joiners U+200C and U+200D stay: several scripts need them.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
)


def printable(text: str) -> str:
    """The text with a space in place of each character that is not shown as it is. Line breaks and tabs stay."""
    return _UNSAFE.sub(" ", text)


def counted(number: int, noun: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def shortlist(names: Sequence[str], most: int = 5) -> str:
    """The first `most` names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def brief(error: BaseException) -> str:
    """One line about the root cause of an error; libraries wrap errors several times."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
