"""The decoded data set: its content, its cache, and that no damage to it or to its source goes unnoticed."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from hpc.submission.prepare import prepare_inputs
from relay.errors import DataError
from relay.log import log
from src.config.loading import make_config
from src.config.schema import Config
from src.data import cache as decoded
from src.data import dataset as data
from src.data import synthetic
from src.data.build import files_of
from src.data.decoding import decode
from src.data.sources import SOURCES, source_of
from src.requests import train_request
from tests.data.images import CLASSES, encode, make, replace_image, rewrite, rows_of
from tests.fork_server import fork_python

PROJECT = Path(__file__).parents[2]
REAL = PROJECT.parent / "shared" / "data" / "tiny-imagenet"


def script(body: str, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """A fresh interpreter in the project that runs `body`."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(body)],
        cwd=PROJECT,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def script_of(function: str, config: Config, after_line: str = "lambda line: None") -> str:
    """The start of a script: `load` or `prepare` of `config`, the latter without torch.

    It calls `after_line` with each line of the log, already written.
    """
    return (
        f"import json, sys, time\nfrom src.config.loading import make_config\nfrom src.data.dataset import {function}\n"
        "from relay import log as logging\nlogging.start_log()\nhandler = logging.log.handlers[0]\n"
        "emit = handler.emit\n"
        f"handler.emit = lambda record: (emit(record), ({after_line})(record.getMessage()))\n"
        f"config = make_config(json.loads({json.dumps(config.to_dict())!r}), 'test')\nfound = {function}(config)\n"
    )


# Content


def test_parts_are_the_images_of_the_source(folder: Path, tmp_path: Path):
    from torchvision import transforms

    found = data.load(make(folder, tmp_path / "root"))
    assert found.class_names == ("class_000", "class_001", "class_002", "class_003")
    assert (len(found.train), len(found.val), len(found.test)) == (48, 24, 8)
    reference = transforms.Resize((16, 16), interpolation=transforms.InterpolationMode.BILINEAR)
    for part, split in ((found.train, "train"), (found.val, "valid"), (found.test, "valid")):
        rows = rows_of(folder, split)
        images, labels = part.take(torch.arange(len(part)))
        assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
        assert isinstance(part.images, np.memmap)
        for position, index in enumerate(part.indices):
            expected = reference(Image.open(io.BytesIO(rows[index]["image"]["bytes"])).convert("RGB"))
            assert np.array_equal(images[position].permute(1, 2, 0).numpy(), np.asarray(expected))
            assert labels[position] == rows[index]["label"]


def test_take_gives_copies_in_the_order_of_the_positions(folder: Path, tmp_path: Path):
    part = data.load(make(folder, tmp_path / "root")).val
    positions = np.array([5, 0, 5])
    images, labels = part.take(positions)
    assert np.array_equal(images.numpy(), part.images[part.indices[positions]])
    assert labels.tolist() == part.labels[part.indices[positions]].tolist()
    assert torch.equal(images, part.take(torch.from_numpy(positions))[0])
    images += 1
    assert not np.array_equal(images.numpy(), part.images[part.indices[positions]])


def test_facts_count_modes_and_sizes(folder: Path, tmp_path: Path):
    grey, wide = Image.new("L", (64, 64), 90), Image.new("RGB", (50, 30), (10, 20, 30))
    replace_image(folder, "train", 0, encode(grey))
    replace_image(folder, "train", 1, encode(wide, "PNG"))
    replace_image(folder, "train", 2, encode(Image.new("RGBA", (64, 64), (1, 2, 3, 128)), "PNG"))
    stored = [Image.open(io.BytesIO(row["image"]["bytes"])).mode for row in rows_of(folder, "train")]
    found = data.load(make(folder, tmp_path / "root"))
    assert found.facts["train"]["count"] == 48
    assert found.facts["train"]["modes"] == {mode: stored.count(mode) for mode in set(stored)}
    assert found.facts["train"]["sizes"] == {"64x64": 47, "30x50": 1}
    images, _ = found.train.take(torch.tensor([0, 1]))
    assert (images[0] == 90).all()
    assert images[1, :, 7, 7].tolist() == [10, 20, 30]


def test_sixteen_bits_and_transparency_are_converted_and_counted(folder: Path, tmp_path: Path):
    ramp = (np.arange(64 * 64).reshape(64, 64) * 16).astype(np.uint16)
    replace_image(folder, "train", 0, encode(Image.fromarray(ramp), "PNG"))
    hidden = Image.new("RGBA", (64, 64), (200, 100, 50, 0))
    hidden.paste((200, 100, 50, 255), (0, 0, 64, 32))
    replace_image(folder, "train", 1, encode(hidden, "PNG"))
    palette = Image.new("P", (64, 64), 1)
    palette.putpalette([9, 9, 9, 40, 50, 60])
    buffer = io.BytesIO()
    palette.save(buffer, "PNG", transparency=1)
    replace_image(folder, "train", 2, buffer.getvalue())
    replace_image(folder, "train", 3, encode(Image.new("LA", (64, 64), (100, 128)), "PNG"))
    found = data.load(make(folder, tmp_path / "root", size=(64, 64)))
    images, _ = found.train.take(torch.arange(4))
    assert np.array_equal(images[0, 0].numpy(), ramp >> 8)
    assert images[1, :, 10, 10].tolist() == [200, 100, 50]
    assert images[1, :, 50, 10].tolist() == [0, 0, 0], "hidden under full transparency"
    assert (images[2] == 0).all()
    assert images[3, :, 0, 0].tolist() == [50, 50, 50]
    assert found.facts["train"]["changes"] == {"16 bits to 8": 1, "transparency over black": 3}
    assert found.facts["valid"]["changes"] == {}


@pytest.mark.parametrize(
    ("image", "hidden", "expected", "change"),
    [
        (Image.fromarray(np.full((8, 8), 40_000, np.uint16)), 40_000, 0, "16 bits to 8, transparency over black"),
        (Image.fromarray(np.full((8, 8), 40_000, np.uint16)), 7, 40_000 >> 8, "16 bits to 8"),
        (Image.new("RGBA", (8, 8), (9, 9, 9, 255)), None, 9, ""),
        (Image.new("L", (8, 8), 77), 77, 0, "transparency over black"),
    ],
)
def test_only_transparent_pixels_become_black(image: Image.Image, hidden: int | None, expected: int, change: str):
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **({} if hidden is None else {"transparency": hidden}))
    decoded_image = decode(buffer.getvalue(), (8, 8))
    assert (decoded_image.pixels == expected).all()
    assert decoded_image.change == change


@pytest.mark.parametrize("mode", ["F", "I"])
def test_modes_without_a_known_value_range_are_refused(folder: Path, tmp_path: Path, mode: str):
    replace_image(folder, "train", 5, encode(Image.new(mode, (64, 64), 7), "TIFF"))
    with pytest.raises(DataError, match=rf"image 5 cannot be decoded: .*its mode is '{mode}'.*save it with 8 or 16"):
        data.load(make(folder, tmp_path / "root"))


@pytest.mark.parametrize("size", [(64, 64), (24, 40), (100, 16)])
def test_any_size_as_torchvision_resizes(folder: Path, tmp_path: Path, size: tuple[int, int]):
    from torchvision import transforms

    part = data.load(make(folder, tmp_path / "root", {"dataset.num_workers": 0}, size)).train
    assert part.images.shape == (48, 3, *size)
    source = Image.open(io.BytesIO(rows_of(folder, "train")[7]["image"]["bytes"])).convert("RGB")
    assert np.array_equal(part.images[7].transpose(1, 2, 0), np.asarray(transforms.Resize(size)(source)))


def test_classes_and_train_per_class_take_a_balanced_part_in_order(folder: Path, tmp_path: Path):
    def shuffle(table: pa.Table) -> pa.Table:
        return table.take(np.random.default_rng(0).permutation(len(table)))

    rewrite(folder, "train", shuffle)
    part = {"dataset.classes": 3, "model.num_classes": 3, "dataset.train_per_class": 5, "dataset.split.test": 6}
    whole, found = data.load(make(folder, tmp_path / "root")), data.load(make(folder, tmp_path / "root", part))
    assert found.folder == whole.folder
    assert found.class_names == ("class_000", "class_001", "class_002")
    labels = np.array([row["label"] for row in rows_of(folder, "train")])
    expected = sorted(i for label in range(3) for i in np.flatnonzero(labels == label)[:5])
    assert found.train.indices.tolist() == expected
    assert np.bincount(found.val.labels[found.val.indices]).tolist() == [8] * 3
    assert np.bincount(found.test.labels[found.test.indices]).tolist() == [2] * 3


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"dataset.train_per_class": 13}, r"train_per_class: 13, but label 0 of .* has 12 images to train on"),
        ({"dataset.classes": 5, "model.num_classes": 5, "dataset.split": {"val": 5, "test": 5}}, r"has 4 classes; set"),
        (
            {"model.num_classes": 3, "dataset.split": {"val": 30, "test": 9}},
            r"num_classes=4 or auto, or dataset.classes=3 to take the first 3 of them$",
        ),
        ({"dataset.split.val": 40}, r"val=40 and test=8 .* the 40 images of .*val=34 dataset.split.test=6"),
    ],
)
def test_a_config_that_does_not_fit_is_refused_before_a_run_starts(
    folder: Path, tmp_path: Path, overrides: dict[str, Any], message: str
):
    with pytest.raises(DataError, match=message):
        data.prepare(make(folder, tmp_path / "root", overrides))


# The cache


def test_another_size_revision_or_content_is_another_folder(folder: Path, tmp_path: Path):
    root = tmp_path / "root"
    first = data.prepare(make(folder, root))
    assert data.prepare(make(folder, root, {"train.seed": 7, "dataset.split.val": 20})) == first
    assert data.prepare(make(folder, root, size=(16, 20))) != first
    replace_image(folder, "valid", 3, encode(Image.new("RGB", (64, 64))))
    assert data.prepare(make(folder, root)) != first
    hub = SOURCES["hub"]
    of_hub = [hub.identity(make("a/b", root, {"dataset.revision": revision})) for revision in (None, "x")]
    assert of_hub[0] != of_hub[1]


def write_bitmaps(folder: Path, first: int) -> None:
    """Images 0 and 1 of train are files of one size."""
    images = [{"bytes": None, "path": f"{number}.bmp"} for number in range(2)]
    for number in range(2):
        Image.new("RGB", (64, 64), (first + 9 * number, 2, 3)).save(folder / f"{number}.bmp")

    def change(table: pa.Table) -> pa.Table:
        column = table.schema.field("image")
        return table.set_column(0, column, pa.array([*images, *table["image"].to_pylist()[2:]], type=column.type))

    if not any(row["image"]["path"] for row in rows_of(folder, "train")):
        rewrite(folder, "train", change)


def exchange_bitmaps(folder: Path) -> None:
    first, second = (folder / f"{number}.bmp" for number in range(2))
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


def change_a_byte_of_the_parquet(folder: Path) -> None:
    """Of a JPEG file in it; its last bytes are the end of the picture's data."""
    (path,) = (folder / "data").glob("train-*")
    content = path.read_bytes()
    end = content.index(b"\xff\xd9", len(content) // 2)
    path.write_bytes(content[: end - 9] + bytes([content[end - 9] ^ 8]) + content[end - 8 :])


@pytest.mark.parametrize(
    "change", [lambda folder: write_bitmaps(folder, 77), exchange_bitmaps, change_a_byte_of_the_parquet]
)
def test_fresh_sees_images_of_the_same_size_and_time(
    folder: Path, tmp_path: Path, change: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
):
    write_bitmaps(folder, 10)
    (path,) = (folder / "data").glob("train-*")
    pq.write_table(pq.read_table(path), path, compression="none")
    config = make(folder, tmp_path / "root")
    place, before = data.prepare(config), data.digest(data.prepare(config))
    times = {each: each.stat() for each in folder.rglob("*") if each.is_file()}
    change(folder)
    for each, facts in times.items():
        assert each.stat().st_size == facts.st_size
        os.utime(each, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert data.digest(data.prepare(config)) == before
    capsys.readouterr()
    assert data.prepare(config, look_closer=True) == place
    assert "were replaced by others of the same sizes and times; decoding again" in capsys.readouterr().err
    assert data.digest(place) != before
    data.prepare(config, look_closer=True)
    assert capsys.readouterr().err == ""


def test_a_fresh_request_looks_closer(folder: Path, tmp_path: Path):
    write_bitmaps(folder, 10)
    request = train_request(make(folder, tmp_path / "root"))
    before = prepare_inputs(request).data
    times = [(path, path.stat()) for path in folder.glob("*.bmp")]
    exchange_bitmaps(folder)
    for path, facts in times:
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert prepare_inputs(request).data == before
    assert prepare_inputs(request, fresh=True).data != before


def test_a_data_set_inside_its_own_root_is_found_again(folder: Path):
    assert data.prepare(make(folder, folder)) == data.prepare(make(folder, folder))


def test_ready_data_is_read_without_lock_writing_or_decoding(folder: Path, tmp_path: Path, monkeypatch):
    config = make(folder, tmp_path / "root")
    place = data.prepare(config)
    for lock in place.parent.glob(".*.lock"):
        lock.unlink()
    before = sorted(place.parent.rglob("*"))

    def refuse(*arguments: object) -> None:
        raise AssertionError("a whole data set is to be read only")

    monkeypatch.setattr(decoded, "_locked", refuse)
    monkeypatch.setattr(log, "info", refuse)
    assert len(data.load(config).train) == 48
    assert sorted(place.parent.rglob("*")) == before


def test_ready_data_needs_no_image_library(folder: Path, tmp_path: Path):
    config = make(folder, tmp_path / "root")
    data.prepare(config)
    run = script(script_of("load", config) + "found.val.take(found.val.indices[:3] * 0)\nprint(sorted(sys.modules))")
    modules = set(re.findall(r"'([\w.]+)'", run.communicate()[0]))
    assert run.returncode == 0
    assert "torch" in modules
    assert not modules & {"datasets", "PIL", "torchvision", "pandas", "pyarrow", "huggingface_hub"}


def test_importing_is_light():
    run = script("import src.data.dataset, sys; print(sorted(sys.modules))")
    modules = set(re.findall(r"'([\w.]+)'", run.communicate()[0]))
    assert run.returncode == 0
    assert "src.data.dataset" in modules
    assert not modules & {"torch", "datasets", "PIL", "torchvision", "pandas", "pyarrow", "filelock"}


def test_building_leaves_home_and_source_alone(folder: Path, tmp_path: Path):
    home = tmp_path / "home"
    home.mkdir()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    run = script(script_of("prepare", make(folder, tmp_path / "root")), {"HOME": str(home), "HF_HUB_OFFLINE": "1"})
    assert run.wait(60) == 0, run.stdout.read()
    run.communicate()
    assert list(home.rglob("*")) == []
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["decoded"]


# Damage to the cache


def truncate(place: Path) -> None:
    os.truncate(place / "0_images.npy", 1000)


def flip_byte(place: Path) -> None:
    path = place / "1_images.npy"
    facts = path.stat()
    with path.open("r+b") as file:
        file.seek(-77, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-77, os.SEEK_END)
        file.write(bytes([byte ^ 4]))
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def lose_meta(place: Path) -> None:
    (place / "meta.json").unlink()


def halve_meta(place: Path) -> None:
    text = (place / "meta.json").read_text()
    (place / "meta.json").write_text(text[: len(text) // 2])


def empty_meta(place: Path) -> None:
    (place / "meta.json").write_text("[]")


def lose_labels(place: Path) -> None:
    (place / "0_labels.npy").unlink()


@pytest.mark.parametrize("damage", [truncate, flip_byte, lose_meta, halve_meta, empty_meta, lose_labels])
def test_damage_is_found_and_repaired(folder: Path, tmp_path: Path, damage: Callable[[Path], None], capsys):
    config = make(folder, tmp_path / "root")
    place = data.prepare(config)
    good = {name: (place / name).read_bytes() for name in files_of(2)}
    damage(place)
    capsys.readouterr()
    assert data.load(config).folder == place
    assert "decoding again" in capsys.readouterr().err.splitlines()[0]
    assert {name: (place / name).read_bytes() for name in files_of(2)} == good
    assert [path.name for path in place.parent.iterdir() if not path.name.endswith(".lock")] == [place.name]
    capsys.readouterr()
    data.load(config)
    assert capsys.readouterr().err == ""


def test_killed_while_building(folder: Path, tmp_path: Path, monkeypatch):
    config = make(folder, tmp_path / "root")
    stuck = "lambda line: time.sleep(60 if 'decoding valid' in line else 0)"
    run = script(script_of("prepare", config, stuck))
    assert run.stdout is not None
    assert any("decoding valid" in line for line in run.stdout)
    [half] = (tmp_path / "root" / "decoded").glob(".*.tmp")
    assert (half / "0_images.npy").exists()
    run.send_signal(signal.SIGKILL)
    run.communicate()
    assert half.exists()
    seen: list[bool] = []
    monkeypatch.setattr(log, "info", lambda line: seen.append(half.exists()))
    found = data.load(config)
    assert seen
    assert not any(seen), "what was half done is to go before its room is needed again"
    assert len(found.train) == 48
    assert np.asarray(found.val.images).any()


def test_two_processes_decode_once(folder: Path, tmp_path: Path):
    config = make(folder, tmp_path / "root")
    # The first one decodes only once the other one waits for it.
    waits = f"__import__('pathlib').Path({str(tmp_path / 'waits')!r})"
    meet = f"lambda line: {waits}.touch() if 'waiting' in line else "
    meet += f"[time.sleep(0.05) for _ in range(2000) if 'decoding' in line and not {waits}.exists()]"
    runs = [script(script_of("prepare", config, meet) + "print('done', found)") for _ in range(2)]
    outputs = [run.communicate(timeout=120)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    assert len({line for text in outputs for line in text.splitlines() if line.startswith("done")}) == 1
    assert sorted("decoding train" in text for text in outputs) == [False, True], outputs
    assert sorted("waiting" in text for text in outputs) == [False, True], outputs


def test_a_root_that_cannot_be_written_is_reported(folder: Path, tmp_path: Path):
    (tmp_path / "root").write_text("a file, not a folder")
    with pytest.raises(DataError, match=r"none can be written: .*dataset\.root"):
        data.prepare(make(folder, tmp_path / "root"))


def test_a_full_disk_is_reported_and_leaves_no_partial_files(folder: Path, tmp_path: Path, monkeypatch):
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match="No space left on device"):
        data.prepare(make(folder, tmp_path / "root"))
    assert [path.suffix for path in (tmp_path / "root" / "decoded").iterdir()] == [".lock"]


# Damage to the source


@pytest.mark.parametrize(
    "content",
    [b"no image", None, b"", encode(Image.effect_noise((64, 64), 60))[:900]],
    ids=["text", "none", "empty", "cut"],
)
def test_an_image_that_cannot_be_decoded_is_named(folder: Path, tmp_path: Path, content: bytes | None):
    replace_image(folder, "valid", 17, content)
    with pytest.raises(DataError, match=r"split 'valid', image 17 cannot be decoded"):
        data.prepare(make(folder, tmp_path / "root"))
    assert [path.suffix for path in (tmp_path / "root" / "decoded").iterdir()] == [".lock"]


def rename_split(folder: Path) -> None:
    card = folder / "README.md"
    card.write_text(card.read_text().replace("split: valid", "split: held_out"))


def drop_label(folder: Path) -> None:
    rewrite(folder, "train", lambda table: table.drop_columns("label").replace_schema_metadata(None))
    rewrite(folder, "valid", lambda table: table.drop_columns("label").replace_schema_metadata(None))


def rename_image(folder: Path) -> None:
    for split in ("train", "valid"):
        rewrite(folder, split, lambda table: table.rename_columns(["picture", "label"]).replace_schema_metadata(None))


def untype_label(folder: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        return table.set_column(1, "label", table["label"].cast(pa.float32())).replace_schema_metadata(None)

    for split in ("train", "valid"):
        rewrite(folder, split, change)


def lose_a_label(folder: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        labels = table["label"].to_pylist()
        labels[9] = None
        return table.set_column(1, table.schema.field("label"), pa.array(labels, type=pa.int64()))

    rewrite(folder, "train", change)


def cut_parquet(folder: Path) -> None:
    os.truncate(next((folder / "data").glob("valid-*")), 5000)


def lose_data(folder: Path) -> None:
    shutil.rmtree(folder / "data")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (rename_split, r"no split 'valid', only held_out, train; set dataset\.split\.valid to held_out"),
        (drop_label, "split 'train': there is no column 'label' .none has such values.; its columns: image"),
        (rename_image, "no column 'image' .set dataset.columns.image=picture.; its columns: picture, label"),
        (untype_label, "column 'label' is of type float32; it must be a ClassLabel, integers, strings or bools"),
        (lose_a_label, "split 'train', image 9 has no label; its 4 classes are"),
        (cut_parquet, "cannot be read as a data set"),
        (lose_data, "cannot be read as a data set"),
    ],
)
def test_a_folder_with_the_wrong_layout_is_named(
    folder: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
):
    damage(folder)
    with pytest.raises(DataError, match=message) as caught:
        data.prepare(make(folder, tmp_path / "root"))
    assert str(folder) in str(caught.value)


def test_splits_go_by_the_names_of_the_config(folder: Path, tmp_path: Path):
    rename_split(folder)
    assert len(data.load(make(folder, tmp_path / "root", {"dataset.split.valid": "held_out"})).val) == 24


@pytest.mark.parametrize(
    ("train", "valid"),
    [
        ("train-00000", "valid-00000"),
        ("train-00000-of-00001", "validation-00000-of-00001"),
        ("train-00000-of-00001", "valid-00000"),
        ("train-00000-of-00001", "valid-00000-of-00001"),
        ("train", "val"),
        ("train_a", "dev.1"),
    ],
)
def test_the_first_word_of_a_file_name_is_its_split(folder: Path, tmp_path: Path, train: str, valid: str):
    (folder / "README.md").unlink()
    expected = rows_of(folder, "valid")[0]["label"]
    for split, name in (("train", train), ("valid", valid)):
        next((folder / "data").glob(f"{split}-*")).rename(folder / "data" / f"{name}.parquet")
    found = data.load(make(folder, tmp_path / "root"))
    assert (len(found.train), len(found.val), len(found.test)) == (48, 24, 8)
    assert found.val.labels[0] == expected


def test_several_words_for_one_split_are_not_guessed(folder: Path, tmp_path: Path):
    (folder / "README.md").unlink()
    valid = next((folder / "data").glob("valid-*"))
    shutil.copy(valid, folder / "data" / "dev.parquet")
    valid.rename(folder / "data" / "val.parquet")
    with pytest.raises(DataError, match=r"no split 'valid', only .*; set dataset\.split\.valid to dev or val"):
        data.prepare(make(folder, tmp_path / "root"))


# Which source a name means


def test_names_are_resolved(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert resolve("synthetic") == ("synthetic", "synthetic")
    assert resolve("zh-plus/tiny-imagenet") == ("hub", "zh-plus/tiny-imagenet")
    for name in ("images", "./images", str(tmp_path / "images"), "owner/../images"):
        assert resolve(name) == ("folder", str(tmp_path / "images"))
    assert resolve("./owner/name") == resolve("owner/name", "folder") == ("folder", str(tmp_path / "owner" / "name"))
    assert resolve("torchvision/CIFAR10") == ("torchvision", "torchvision/CIFAR10")
    assert resolve("torchvision/CIFAR10", "hub") == ("hub", "torchvision/CIFAR10")
    assert resolve("owner/name", "hub") == ("hub", "owner/name")
    assert resolve("images", "synthetic") == ("synthetic", "synthetic")


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("owner/name", "auto", r"set dataset\.source=folder or dataset\.source=hub"),
        (
            "nothing",
            "auto",
            "'nothing' means no data set here; set it to one of: synthetic, a data set of .*, a folder, a Hub",
        ),
        ("./nothing", "auto", "there is no folder"),
        ("nothing/at/all", "auto", "there is no folder"),
        ("nothing", "folder", "there is no folder"),
        ("nothing", "hub", "is not a Hub name"),
        ("owner/name", "torchvision", "is no data set of torchvision; write torchvision/CIFAR10"),
        (
            "nothing",
            "zip",
            "dataset.source: 'zip' is not a source; choose auto, synthetic, torchvision, function, folder, hub",
        ),
    ],
)
def test_names_that_mean_nothing_or_two_things_are_refused(tmp_path, monkeypatch, name, source, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    with pytest.raises(DataError, match=message):
        resolve(name, source)


def resolve(name: str, kind: str = "auto") -> tuple[str, str]:
    source = source_of(make(name, Path("root"), {"dataset.source": kind}).dataset)
    return source.kind, source.locate(name)


# The Hub, as a server on this machine


class Hub(BaseHTTPRequestHandler):
    """The part of the Hub's interface that a download uses, for one data set."""

    folder: Path
    commit = "0123456789abcdef0123456789abcdef01234567"
    lost = ""  # a file that is listed but cannot be downloaded
    refusal: tuple[int, dict[str, str]] | None = None

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        files = {str(file.relative_to(self.folder)): file for file in self.folder.rglob("*") if file.is_file()}
        prefix = f"/datasets/own/images/resolve/{self.commit}/"
        if self.refusal:
            self.answer(self.refusal[0], b"{}", self.refusal[1])
        elif path.startswith("/api/datasets/own/images/revision/") and path.endswith("/absent"):
            self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif (
            path.startswith(("/api/datasets/own/images/revision/", "/api/datasets/own/images")) and "/tree/" not in path
        ):
            siblings = [{"rfilename": name} for name in files]
            self.answer(200, json.dumps({"id": "own/images", "sha": self.commit, "siblings": siblings}).encode())
        elif path.startswith("/api/datasets/own/images/tree/"):
            listing = [
                {
                    "type": "file",
                    "path": name,
                    "size": file.stat().st_size,
                    "oid": hashlib.sha256(file.read_bytes()).hexdigest()[:40],
                }
                for name, file in files.items()
            ]
            self.answer(200, json.dumps(listing).encode())
        elif (
            path.startswith(prefix) and path.removeprefix(prefix) in files and (not self.lost or self.lost not in path)
        ):
            content = files[path.removeprefix(prefix)].read_bytes()
            etag = hashlib.sha256(content).hexdigest()[:40]
            self.answer(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": self.commit})
        else:
            self.answer(404, b"{}", {"X-Error-Code": "EntryNotFound" if path.startswith(prefix) else "RepoNotFound"})

    do_HEAD = do_GET  # noqa: N815

    def answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


@pytest.fixture
def hub(folder: Path) -> Iterator[ThreadingHTTPServer]:
    handler = type("FolderHub", (Hub,), {"folder": folder})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


def prepare_from_hub(config: Config, address: str, environment: dict[str, str] | None = None) -> tuple[str, float]:
    """The output of a new process, and its seconds; the Hub's library reads HF_* when it is imported."""
    body = """
        from relay.errors import DataError
        try:
            print("prepared", prepare(config))
        except DataError as error:
            print("refused", error)
    """
    head = script_of("prepare", config).rpartition("found =")[0]
    start = time.monotonic()
    run = fork_python(
        "-c",
        "import warnings; warnings.simplefilter('error')\n" + head + textwrap.dedent(body),
        env={"HF_ENDPOINT": address, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0", **(environment or {})},
    )
    output = run.stdout + run.stderr
    assert run.returncode == 0, output
    return output, time.monotonic() - start


def test_hub_download_then_without_a_network(hub, folder: Path, tmp_path: Path):
    root = tmp_path / "root"
    address, nowhere = f"http://127.0.0.1:{hub.server_port}", "http://127.0.0.1:9"
    output, _ = prepare_from_hub(make("own/images", root), address)
    assert "prepared" in output, output
    for environment, change in (({}, {"dataset.download": False}), ({"HF_HUB_OFFLINE": "1"}, {}), ({}, {})):
        size = (16 + len(environment), 17 + len(change))
        output, _ = prepare_from_hub(make("own/images", root, change, size), nowhere, environment)
        assert "prepared" in output, output
    found, local = data.load(make("own/images", root)), data.load(make(folder, root))
    assert found.folder != local.folder
    assert np.array_equal(found.train.images, local.train.images)


@pytest.mark.parametrize("lost", ["train-00000-of-00002", "train-00001-of-00002"])
def test_half_a_hub_cache_is_refused(hub, folder: Path, tmp_path: Path, lost: str):
    root = tmp_path / "root"
    (path,) = (folder / "data").glob("train-*")
    table = pq.read_table(path)
    for number in range(2):
        pq.write_table(table.slice(24 * number, 24), path.with_name(f"train-0000{number}-of-00002.parquet"))
    path.unlink()
    output, _ = prepare_from_hub(make("own/images", root), f"http://127.0.0.1:{hub.server_port}")
    assert "prepared" in output, output
    (shard,) = (root / "hub").rglob(f"{lost}.parquet")
    shard.unlink()
    # Older versions of huggingface_hub write no listing of the files, from which newer ones see that one is missing.
    for listings in (root / "hub").rglob("trees"):
        shutil.rmtree(listings)
    change = {"dataset.download": False}
    output, _ = prepare_from_hub(make("own/images", root, change, size=(17, 17)), "http://127.0.0.1:9")
    assert re.search(r"refused own/images, split 'train': has 1 of the 2 files", output), output


def test_a_hub_data_set_with_a_test_split_is_refused(hub, folder: Path, tmp_path: Path):
    (folder / "README.md").unlink()
    shutil.copy(next((folder / "data").glob("valid-*")), folder / "data" / "test-00000-of-00001.parquet")
    config = make("own/images", tmp_path / "root", {"dataset.split.valid": "validation"})
    (folder / "data" / "valid-00000-of-00001.parquet").rename(folder / "data" / "validation-00000-of-00001.parquet")
    output, _ = prepare_from_hub(config, f"http://127.0.0.1:{hub.server_port}")
    assert "refused dataset.name: own/images has the split 'test' beside 'train' and 'validation'" in output, output


def test_hub_that_has_no_such_name_or_revision(hub, tmp_path: Path):
    address = f"http://127.0.0.1:{hub.server_port}"
    output, _ = prepare_from_hub(make("own/other", tmp_path), address)
    assert re.search(r"refused .*own/other .*has no such data set", output), output
    output, _ = prepare_from_hub(make("own/images", tmp_path, {"dataset.revision": "absent"}), address)
    assert re.search(r"refused .*revision absent.*set dataset\.revision", output), output


@pytest.mark.parametrize(
    ("refusal", "token", "message"),
    [
        ((401, {}), "hf_old", r"refuses your token \(401\), or has no such data set; .* set HF_TOKEN to a valid"),
        ((401, {}), "", "has no such data set, or you may not read it; .*set HF_TOKEN if it is private"),
        ((403, {"X-Error-Code": "GatedRepo"}), "hf_own", "accepted its conditions; accept them on its page there"),
        ((429, {"Retry-After": "70"}), "", r"too many requests from here \(429; try again in 70 s, or set HF_TOKEN\)"),
        ((429, {}), "", r"too many requests from here \(429; try again in a few minutes"),
    ],
)
def test_a_hub_that_refuses(hub, tmp_path: Path, refusal: tuple[int, dict[str, str]], token: str, message: str):
    hub.RequestHandlerClass.refusal = refusal
    address, own = f"http://127.0.0.1:{hub.server_port}", {"HF_TOKEN": token, "HF_HOME": str(tmp_path / "home")}
    output, _ = prepare_from_hub(make("own/images", tmp_path), address, own)
    assert re.search(rf"refused dataset\.name: own/images .*{message}", output), output


def test_download_false_fetches_nothing_from_a_hub_that_answers(hub, tmp_path: Path):
    address = f"http://127.0.0.1:{hub.server_port}"
    for change, environment in (({"dataset.download": False}, {}), ({}, {"HF_HUB_OFFLINE": "1"})):
        output, _ = prepare_from_hub(make("own/images", tmp_path, change), address, environment)
        assert "refused" in output, output


def test_an_incomplete_hub_download_is_not_used(hub, tmp_path: Path):
    config, address = make("own/images", tmp_path), f"http://127.0.0.1:{hub.server_port}"
    hub.RequestHandlerClass.lost = "valid"
    assert "refused" in prepare_from_hub(config, address)[0]
    output, _ = prepare_from_hub(config, address, {"HF_HUB_OFFLINE": "1"})
    assert "refused" in output, output
    hub.RequestHandlerClass.lost = ""
    assert "prepared" in prepare_from_hub(config, address)[0]


def test_hub_out_of_reach_is_one_quick_message(tmp_path: Path):
    config = make("own/images", tmp_path)
    output, seconds = prepare_from_hub(config, "http://127.0.0.1:9")
    assert re.search(r"refused .*127\.0\.0\.1:9 cannot be reached .*HF_HUB_OFFLINE.*HF_ENDPOINT.*local folder", output)
    assert "Traceback" not in output
    assert seconds < 30
    output, _ = prepare_from_hub(make("own/images", tmp_path, {"dataset.download": False}), "http://127.0.0.1:9")
    assert "refused" in output
    assert "dataset.download is false" in output


# Synthetic


def test_synthetic_is_as_large_as_configured_and_the_same_every_time(tmp_path: Path):
    change = {"dataset.synthetic_train_per_class": 9, "dataset.synthetic_valid_per_class": 8}
    first = data.load(make("synthetic", tmp_path / "a", change))
    again = data.load(make("synthetic", tmp_path / "b", change))
    other = data.load(make("synthetic", tmp_path / "a", {**change, "dataset.synthetic_seed": 1}))
    assert (len(first.train), len(first.val), len(first.test), len(first.class_names)) == (36, 24, 8, CLASSES)
    assert np.array_equal(first.train.images, again.train.images)
    assert first.folder.name == again.folder.name
    assert first.folder != other.folder
    assert not np.array_equal(first.train.images, other.train.images)
    assert not np.array_equal(first.train.images[:8], first.val.images[:8])


def test_synthetic_has_the_layout_of_the_real_set(original: Path, tmp_path: Path):
    schema = pq.read_schema(next((original / "data").glob("train-*")))
    assert str(schema.field("image").type) == "struct<bytes: binary, path: string>"
    images = [Image.open(io.BytesIO(row["image"]["bytes"])) for row in rows_of(original, "train")]
    assert {(image.format, image.size) for image in images} == {("JPEG", (64, 64))}
    synthetic.write(tmp_path, classes=2, train_per_class=300, valid_per_class=1, seed=0)
    grey = [Image.open(io.BytesIO(row["image"]["bytes"])).mode for row in rows_of(tmp_path, "train")].count("L")
    assert 3 <= grey <= 30
    assert len({synthetic._code(label) for label in range(synthetic.MAX_CLASSES)}) == synthetic.MAX_CLASSES


def test_more_classes_than_synthetic_has_are_refused(tmp_path: Path):
    change = {"model.num_classes": 201, "dataset.split": {"val": 201, "test": 201}}
    with pytest.raises(DataError, match="at most 200 classes, not 201"):
        data.prepare(make("synthetic", tmp_path, change))


# The real set


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[data.ImageData]:
    if not REAL.is_dir():
        pytest.skip(f"the real Tiny ImageNet is not at {REAL}")
    folder = tmp_path_factory.mktemp("real")
    (folder / "images" / "data").mkdir(parents=True)
    (folder / "images" / "README.md").symlink_to(REAL / "README.md")
    for split in ("train", "valid"):
        # One file of each, under the name of the only one.
        shard = sorted((REAL / "data").glob(f"{split}-*"))[0]
        (folder / "images" / "data" / f"{split}-00000-of-00001.parquet").symlink_to(shard)
    config = make_config({"dataset": {"name": str(folder / "images"), "root": str(folder / "root")}}, "test")
    yield data.load(config)
    shutil.rmtree(folder, ignore_errors=True)


def test_real_images(real: data.ImageData):
    assert (len(real.train), len(real.val), len(real.test), len(real.class_names)) == (10_000, 8000, 2000, 200)
    assert real.facts["valid"]["sizes"] == {"64x64": 10_000}
    assert real.facts["valid"]["modes"] == {"RGB": 9832, "L": 168}
    rows = rows_of(REAL, "valid")
    for index in (0, 4321, 9999):
        expected = np.asarray(Image.open(io.BytesIO(rows[index]["image"]["bytes"])).convert("RGB"))
        assert np.array_equal(real.val.images[index].transpose(1, 2, 0), expected)
    assert real.test.indices[:5].tolist() == [42, 17, 30, 34, 20]
    assert not set(real.val.indices.tolist()) & set(real.test.indices.tolist())
