from __future__ import annotations

import io
import random
import resource
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relay.errors import RunError
from relay.runs.predictions import PREDICTED, Predictions, encode_predictions, read_predictions, write_predictions


def made(count: int = 8000) -> Predictions:
    random = np.random.default_rng(0)
    label = random.integers(0, 200, count)
    predicted = np.where(random.random(count) < 0.5, label, random.integers(0, 200, count))
    loss = random.exponential(2.0, count)
    return Predictions(label, predicted, random.random(count), loss, random.random(count) < 0.7, "a1" * 8)


def made_crossed(count: int) -> Predictions:
    whole = made(count)
    columns: dict[str, Any] = {name: getattr(whole, name)[::-1].copy() for name in PREDICTED}
    return replace(whole, crossed=replace(whole, **columns))


def same(first: Predictions | None, second: Predictions | None) -> bool:
    if first is None or second is None:
        return first is second
    names = ("label", *PREDICTED)
    equal = all(np.array_equal(getattr(first, name), getattr(second, name)) for name in names)
    return equal and first.images == second.images and same(first.crossed, second.crossed)


def test_what_was_written_is_read_and_8000_images_take_tens_of_kilobytes(tmp_path: Path) -> None:
    path, written = tmp_path / "predictions.npz", made()
    write_predictions(path, written, lambda: None)
    read = read_predictions(path)
    assert read is not None
    assert (read.label == written.label).all()
    assert (read.correct == written.correct).all()
    assert (read.in_top5 == written.in_top5).all()
    assert read.loss.mean() == pytest.approx(written.loss.mean(), rel=1e-6)
    assert read.confidence.mean() == pytest.approx(written.confidence.mean(), rel=1e-4)
    assert read.images == written.images
    assert read.crossed is None
    assert path.stat().st_size < 70_000


def test_crossed_predictions_are_read_with_the_labels_and_images_of_the_others(tmp_path: Path) -> None:
    path, written = tmp_path / "predictions.npz", made_crossed(8000)
    write_predictions(path, written, lambda: None)
    read = read_predictions(path)
    assert read is not None
    assert read.crossed is not None
    assert written.crossed is not None
    assert (read.crossed.label == written.label).all()
    assert (read.crossed.predicted == written.crossed.predicted).all()
    assert (read.crossed.in_top5 == written.crossed.in_top5).all()
    assert read.crossed.loss == pytest.approx(written.crossed.loss, rel=1e-6)
    assert read.crossed.confidence == pytest.approx(written.crossed.confidence, rel=1e-3, abs=1e-6)
    assert read.crossed.same_images(read)
    assert read.crossed.crossed is None
    assert (read.crossed.loss != read.loss).any()
    assert path.stat().st_size < 140_000
    # What was read is written as the same bytes, so that a resumed run ends with the same file.
    assert encode_predictions(read) == path.read_bytes()


def test_a_missing_file_is_none_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "predictions.npz"
    assert read_predictions(path) is None
    for content in (b"", b"PK\x03\x04 torn", b"no archive at all"):
        path.write_bytes(content)
        with pytest.raises(RunError, match=r"predictions\.npz: is damaged .*evaluate the checkpoint again"):
            read_predictions(path)


def test_columns_of_different_length_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "predictions.npz"
    whole = made(10)
    short = replace(whole, label=whole.label[:9])
    for damaged in (short, replace(whole, crossed=replace(whole, loss=whole.loss[:9]))):
        write_predictions(path, damaged, lambda: None)
        with pytest.raises(RunError, match="columns differ in length"):
            read_predictions(path)


def test_no_flipped_bit_leads_to_a_traceback_or_to_other_values(tmp_path: Path) -> None:
    path, written = tmp_path / "predictions.npz", made_crossed(100)
    write_predictions(path, written, lambda: None)
    content, whole = path.read_bytes(), read_predictions(path)
    assert whole is not None
    choose = random.Random(0)
    for place in choose.sample(range(8 * len(content)), 1500):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            found = read_predictions(path)
        except RunError as error:
            assert "predictions.npz: is damaged (" in str(error)  # noqa: PT017
        else:
            # Dates and other fields of the archive that nobody reads.
            assert same(found, whole)


def member(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + data


@pytest.mark.parametrize(
    "label",
    [
        member("{'descr': '<u2', 'fortran_order': False, 'shape': (1000000000000,), }"),
        member("{'descr': '<u2', 'fortran_order': False, 'shape': (10, 100000000000), }", bytes(20)),
        member("{'descr': '<u2', 'fortran_order': False, 'shape': (-10,), }", bytes(20)),
        member("{'descr': '|O', 'fortran_order': False, 'shape': (10,), }", bytes(80)),
        member("{'descr': '<f8', 'fortran_order': False, 'shape': (10,), }", bytes(80)),
        member("{'descr': '<u2', 'fortran_order': False, 'shape': (), }", bytes(2)),
        member("{'descr': '<u2', 'fortran_order': False, 'shape': (9.0,), }", bytes(18)),
        member("[" * 5000),
        member("{'descr': '<u2', 'fortran_order': False, 'shape': (10,), }", bytes(20), b"\x09\x00"),
        member("{'descr': '<u2', 'fortran_order': False, 'shape': (10,), }", bytes(19)),
        b"",
    ],
)
def test_a_header_of_any_shape_and_type_is_refused_before_memory_is_taken(tmp_path: Path, label: bytes) -> None:
    path, before = tmp_path / "predictions.npz", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    write_predictions(path, made(10), lambda: None)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**members, "label.npy": label}.items():
            archive.writestr(name, content)
    with pytest.raises(RunError, match=r"predictions\.npz: is damaged \("):
        read_predictions(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


@pytest.mark.parametrize("lost", ["images.npy", "loss.npy", "crossed_loss.npy", "crossed_predicted.npy"])
def test_a_file_without_one_of_its_columns_is_refused(tmp_path: Path, lost: str) -> None:
    path, buffer = tmp_path / "predictions.npz", io.BytesIO()
    write_predictions(path, made_crossed(10), lambda: None)
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(buffer, "w") as changed:
        for name in sorted(set(archive.namelist()) - {lost}):
            changed.writestr(name, archive.read(name))
    path.write_bytes(buffer.getvalue())
    with pytest.raises(RunError, match=r"predictions\.npz: is damaged \("):
        read_predictions(path)
