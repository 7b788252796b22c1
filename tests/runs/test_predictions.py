from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from src.errors import RunError
from src.runs.predictions import Predictions, read_predictions, write_predictions


def made(count: int = 8000) -> Predictions:
    random = np.random.default_rng(0)
    label = random.integers(0, 200, count)
    predicted = np.where(random.random(count) < 0.5, label, random.integers(0, 200, count))
    loss = random.exponential(2.0, count)
    return Predictions(label, predicted, random.random(count), loss, random.random(count) < 0.7)


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
    assert path.stat().st_size < 70_000


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
    np.savez(path, **{**vars(whole), "label": whole.label[:9]})
    with pytest.raises(RunError, match="its columns differ in length"):
        read_predictions(path)
