"""Reads TensorBoard's event files of any program: scalars and settings, without images and histograms.

The format is a sequence of records (https://www.tensorflow.org/tutorials/load_data/tfrecord): length, its checksum, a
serialized Event, its checksum. TensorBoard's own reader decodes each Event by itself. This one decodes all records with
the same bytes but for time, step and value, that is those of one tag, in one go.
"""

from __future__ import annotations

import functools
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relay.errors import RunError
from relay.results.foreign.event_values import decoded

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    # A tag, or None for the start of a session; where its points are in the file, int64 (points,), their steps, int64
    # (points,), and values, float64 (points,).
    Points = tuple[str | None, NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]

PATTERN = "*tfevents*"
_HEADER, _FOOTER = 12, 4
# Larger records hold images, which are not read, or settings.
_MOST_CHECKED = 1024
# An Event as writers serialize a single scalar: wall_time (1), step (2) if it is not 0, summary (5) with one value (1),
# which has a tag (1) and a simple_value (2).
_SCALAR = re.compile(rb"\x09.{8}(?:\x10([\x80-\xff]*[\x00-\x7f]))?\x2a.\x0a.\x0a(.)(.+)\x15.{4}", re.DOTALL)
_TIME = slice(1, 9)
# The tags of larger records that are read nevertheless, near their beginning: see event_values.py.
_SETTINGS = re.compile(rb"_hparams_/|/text_summary")
_HEAD = 256


@dataclass(frozen=True)
class Events:
    """What a run logged.

    `scalars`: by tag, the steps in order and the values. `hparams`: the settings, {} if there are none. `notes`: a
    sentence for each file that was read only in part.
    """

    scalars: Mapping[str, tuple[Sequence[int], Sequence[float]]]
    hparams: Mapping[str, Any]
    notes: Sequence[str]


def read_events(files: Sequence[Path]) -> Events:
    """Read the event files of one run, in the order of their names.

    A run that went back overwrites what it had logged, as in TensorBoard: a value replaces those of its tag that were
    logged before it with the same or a later step; a restart (`purge_step`) does so for all tags. Raises RunError if a
    file cannot be opened.
    """
    points: dict[str, list[Points]] = {}
    restarts: list[Points] = []
    hparams: dict[str, Any] = {}
    notes: list[str] = []
    offset = 0
    for path in sorted(files):
        try:
            content = path.read_bytes()
        except OSError as error:
            raise RunError(f"{path}: cannot be read: {error.strerror}") from None
        for tag, places, steps, values in _scalars_of(content, *_records(path, content, notes), hparams):
            chunks = restarts if tag is None else points.setdefault(tag, [])
            chunks.append((tag, places + offset, steps, values))
        offset += len(content)
    return Events({tag: _joined(points[tag], restarts) for tag in sorted(points)}, hparams, notes)


def _joined(chunks: Sequence[Points], restarts: Sequence[Points]) -> tuple[list[int], list[float]]:
    import numpy as np

    logged = sum(len(chunk[1]) for chunk in chunks)
    places, steps, values = (np.concatenate([chunk[part] for chunk in (*chunks, *restarts)]) for part in (1, 2, 3))
    order = np.argsort(places, kind="stable")
    # The lowest step at each place or after it.
    lowest = np.minimum.accumulate(steps[order][::-1])[::-1]
    kept = order[np.append(steps[order[:-1]] < lowest[1:], True)]
    kept = kept[kept < logged]  # The others are restarts.
    return steps[kept].tolist(), values[kept].tolist()


def _records(path: Path, content: bytes, notes: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the data of each record begins, and its size, up to the first damaged one, which is noted."""
    import numpy as np

    starts, lengths, place = [], [], 0
    while place + _HEADER <= len(content):
        (length,) = struct.unpack_from("<Q", content, place)
        if place + _HEADER + length + _FOOTER > len(content):
            break
        starts.append(place)
        lengths.append(length)
        place += _HEADER + length + _FOOTER
    raw = np.frombuffer(content, dtype=np.uint8)
    begins, sizes = np.array(starts, dtype=np.int64), np.array(lengths, dtype=np.int64)
    whole = _are_whole(raw, begins, np.full(len(begins), 8)) & _are_whole(raw, begins + _HEADER, sizes)
    count = len(starts) if whole.all() else int(whole.argmin())
    end = place if count == len(starts) else starts[count]
    if end != len(content):
        notes.append(f"{path}: damaged at byte {end} of {len(content)}; the {count} records before that were read")
    return begins[:count] + _HEADER, sizes[:count]


def _are_whole(raw: NDArray[np.uint8], begins: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether the checksum behind each piece of `raw` is right, bool (pieces,); pieces of images count as right."""
    import numpy as np

    checksums, table = np.full(len(begins), 0xFFFFFFFF, dtype=np.uint32), _table()
    checked = sizes <= _MOST_CHECKED
    for offset in range(int(sizes[checked].max(initial=0))):
        longer = np.flatnonzero(checked & (sizes > offset))
        own = checksums[longer]
        checksums[longer] = table[(own ^ raw[begins[longer] + offset]) & 0xFF] ^ (own >> 8)
    checksums ^= 0xFFFFFFFF
    # Stored rotated and with a constant added, because checksums of checksums are weak.
    masked = ((checksums >> 15) | (checksums << 17)) + np.uint32(0xA282EAD8)
    stored = raw[(begins + sizes)[:, None] + np.arange(4)].reshape(-1, 4).view("<u4").ravel()
    equal: NDArray[np.bool_] = masked == stored
    return equal | ~checked


@functools.cache
def _table() -> NDArray[np.uint32]:
    """The table of CRC-32C (RFC 3720, appendix B.4)."""
    import numpy as np

    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(0x82F63B78), table >> 1)
    return table


def _scalars_of(
    content: bytes, begins: NDArray[np.int64], sizes: NDArray[np.int64], hparams: dict[str, Any]
) -> Iterator[Points]:
    """The scalars in the records, tag by tag and in their order; hyperparameters are added to `hparams`."""
    import numpy as np

    raw = np.frombuffer(content, dtype=np.uint8)
    for size in np.unique(sizes):
        own = begins[sizes == size]
        if size > _MOST_CHECKED:
            own = own[[_SETTINGS.search(content, each, each + min(size, _HEAD)) is not None for each in own]]
        remaining = raw[own[:, None] + np.arange(size)]
        while len(remaining):
            first = remaining[0].tobytes()
            scalar = _SCALAR.fullmatch(first)
            if scalar and scalar[2][0] == len(scalar[3]):
                alike = _alike(remaining, slice(*scalar.span(1)))
                values = np.ascontiguousarray(remaining[alike, -4:]).view("<f4").ravel().astype("float64")
                steps = _varints(remaining[alike, slice(*scalar.span(1))])
                yield scalar[3].decode(errors="replace"), own[alike], steps, values
                remaining, own = remaining[~alike], own[~alike]
            else:
                for tag, step, value in decoded(first, hparams):
                    yield tag, own[:1], np.array([step]), np.array([value])
                remaining, own = remaining[1:], own[1:]


def _alike(records: NDArray[np.uint8], step: slice) -> NDArray[np.bool_]:
    """Which records differ from the first only in their time, step and value, bool (records,)."""
    import numpy as np

    fixed = records.copy()
    fixed[:, _TIME] = fixed[:, -4:] = 0
    # The highest bit says whether another byte of the step follows.
    fixed[:, step] &= 0x80
    equal: NDArray[np.bool_] = np.equal(fixed, fixed[0]).all(axis=1)
    return equal


def _varints(text: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The numbers in `text`, uint8 (numbers, bytes), 7 bits per byte and the lowest first; 0 if there are no bytes."""
    import numpy as np

    places = 7 * np.arange(text.shape[1], dtype="int64")
    numbers: NDArray[np.int64] = ((text & 0x7F).astype("int64") << places).sum(axis=1)
    return numbers
