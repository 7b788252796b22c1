"""Splits in a folder are whole, and every image is in the folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from relay.errors import DataError
from src.data import dataset as data
from src.data.reading import _check_shards
from tests.data.images import make, rewrite, rows_of

# Shards


def split_train(folder: Path, *names: str) -> None:
    """Replace the file of train by files of these names, with a part of the images each."""
    (path,) = (folder / "data").glob("train-*.parquet")
    table = pq.read_table(path)
    path.unlink()
    for number, name in enumerate(names):
        part = len(table) // len(names)
        pq.write_table(table.slice(number * part, part), folder / "data" / name)


@pytest.mark.parametrize(
    "names",
    [
        ("train-00000-of-00002.parquet", "train-00001-of-00002.parquet"),
        ("train-1-of-3.parquet", "train-2-of-3.parquet", "train-3-of-3.parquet"),
        ("train-00000-of-00002-8f3a.parquet", "train-00001-of-00002-77b1.parquet"),
        ("train-a.parquet", "train-b.parquet"),
    ],
)
@pytest.mark.parametrize("card", [True, False])
def test_all_shards_are_read(folder: Path, tmp_path: Path, names: tuple[str, ...], card: bool):
    split_train(folder, *names)
    if not card:
        (folder / "README.md").unlink()
    assert len(data.load(make(folder, tmp_path / "root")).train) == 48


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train-00000-of-00002.parquet"], r"has 1 of the 2 files .*number 1 is missing; complete"),
        (["train-00001-of-00002.parquet"], r"has 1 of the 2 files .*number 0 is missing"),
        (["train-00001-of-00003-0a.parquet", "train-00002-of-00003-0b.parquet"], r"has 2 of the 3 .*number 0 is"),
        (["train-1-of-3.parquet", "train-3-of-3.parquet"], r"number 2 is missing"),
        (["train-00000-of-00001.parquet", "train-00000-of-00002.parquet"], r"are from different versions"),
        (
            ["train-00000-of-00001.parquet", "train.parquet"],
            r"and train\.parquet are from different versions",
        ),
        (["train-00000-of-00001-aa.parquet", "train-00000-of-00001-bb.parquet"], r"have the same number"),
        (["train-00000-of-00001.parquet", "train-00001-of-00001.parquet"], r"train-00001-of-00001\.parquet is beyond"),
    ],
)
@pytest.mark.parametrize("card", [True, False])
def test_part_of_a_split_is_refused(folder: Path, tmp_path: Path, names: list[str], message: str, card: bool):
    split_train(folder, *names)
    path = folder / "README.md"
    path.write_text(path.read_text().replace("train-*.parquet", "train*.parquet"))
    if not card:
        path.unlink()
    with pytest.raises(DataError, match=rf"split 'train'.*{message}"):
        data.prepare(make(folder, tmp_path / "root"))


def test_a_part_of_valid_is_refused(folder: Path, tmp_path: Path):
    (path,) = (folder / "data").glob("valid-*")
    path.rename(path.with_name("valid-00001-of-00004.parquet"))
    with pytest.raises(DataError, match=r"split 'valid': has 1 of the 4 files"):
        data.prepare(make(folder, tmp_path / "root"))


def test_shards_in_several_folders_are_counted_in_each():
    both = [f"/data/{place}/train-{number}-of-2.parquet" for place in "ab" for number in (0, 1)]
    _check_shards(both, "split 'train'")
    with pytest.raises(DataError, match="has 1 of the 2 files"):
        _check_shards(both[:-1], "split 'train'")


# Paths


def name_file(folder: Path, named: str) -> None:
    """Replace the bytes of image 5 of train by the path of a file."""

    def change(table: pa.Table) -> pa.Table:
        images = table["image"].to_pylist()
        images[5] = {"bytes": None, "path": named}
        return table.set_column(0, table.schema.field("image"), pa.array(images, type=table.schema.field("image").type))

    rewrite(folder, "train", change)


@pytest.fixture
def picture(folder: Path, tmp_path: Path) -> Path:
    """An image file outside of the data set."""
    path = tmp_path / "private.jpg"
    path.write_bytes(rows_of(folder, "train")[5]["image"]["bytes"])
    return path


def absolute(folder: Path, picture: Path) -> str:
    return str(picture)


def above(folder: Path, picture: Path) -> str:
    return "../private.jpg"


def above_from_inside(folder: Path, picture: Path) -> str:
    return f"{folder}/data/../../private.jpg"


def link(folder: Path, picture: Path) -> str:
    (folder / "linked.jpg").symlink_to(picture)
    return "linked.jpg"


def link_of_folder(folder: Path, picture: Path) -> str:
    (folder / "more").symlink_to(picture.parent)
    return f"{folder}/more/private.jpg"


def beside(folder: Path, picture: Path) -> str:
    """A folder whose name begins with that of the data set."""
    other = folder.with_name(f"{folder.name}-other")
    other.mkdir()
    shutil.copy(picture, other)
    return str(other / "private.jpg")


@pytest.mark.parametrize("name", [absolute, above, above_from_inside, link, link_of_folder, beside])
def test_a_row_names_no_file_outside_the_folder(
    folder: Path, tmp_path: Path, picture: Path, name: Callable[[Path, Path], str]
):
    name_file(folder, name(folder, picture))
    with pytest.raises(DataError, match=r"split 'train', image 5 is the file .*, which is outside of"):
        data.prepare(make(folder, tmp_path / "root"))


@pytest.mark.parametrize("named", ["file:///etc/hostname", "http://127.0.0.1:9/5.jpg", "pictures/none.jpg"])
def test_a_row_that_names_no_file_says_so(folder: Path, tmp_path: Path, named: str) -> None:
    name_file(folder, named)
    with pytest.raises(DataError, match=rf"split 'train', image 5 is the file {named}, which is not in"):
        data.prepare(make(folder, tmp_path / "root"))


@pytest.mark.parametrize("named", ["/scratch/nobody/5.jpg", "../elsewhere/5.jpg"])
def test_a_row_that_names_a_file_of_another_machine(folder: Path, tmp_path: Path, named: str) -> None:
    name_file(folder, named)
    message = (
        rf"image 5 is the file {named}, which is not on this machine; copy it into {folder} and name it from there"
    )
    with pytest.raises(DataError, match=message):
        data.prepare(make(folder, tmp_path / "root"))


def test_a_card_of_several_configurations_names_them(folder: Path, tmp_path: Path) -> None:
    both = "".join(f"- config_name: {name}\n  data_files: data/train-*.parquet\n" for name in ("small", "large"))
    (folder / "README.md").write_text(f"---\nconfigs:\n{both}---\n")
    with pytest.raises(
        DataError, match=r"several configurations in its README\.md: small, large; Relay reads one: copy"
    ):
        data.prepare(make(folder, tmp_path / "root"))


@pytest.mark.parametrize("named", ["pictures/5.jpg", "{folder}/pictures/5.jpg", "pictures/link.jpg"])
def test_a_row_names_files_in_the_folder(
    folder: Path, tmp_path: Path, picture: Path, named: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    expected = data.load(make(folder, tmp_path / "bytes")).train
    (folder / "pictures").mkdir()
    shutil.copy(picture, folder / "pictures" / "5.jpg")
    (folder / "pictures" / "link.jpg").symlink_to("5.jpg")
    name_file(folder, named.format(folder=folder))
    found = data.load(make(folder, tmp_path / "root")).train
    assert found.count_shared(expected) == len(found)


@pytest.mark.parametrize("path", ["{outside}/valid-*.parquet", "../outside/valid-*.parquet"])
def test_a_card_names_no_file_outside_the_folder(folder: Path, tmp_path: Path, path: str):
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.move(next((folder / "data").glob("valid-*")), outside)
    card = folder / "README.md"
    card.write_text(card.read_text().replace("data/valid-*.parquet", path.format(outside=outside)))
    with pytest.raises(DataError, match=r"README\.md names .*valid-00000-of-00001\.parquet, which is not in this"):
        data.prepare(make(folder, tmp_path / "root"))


def test_a_folder_that_is_a_link_and_linked_shards_are_read(folder: Path, tmp_path: Path):
    (path,) = (folder / "data").glob("train-*")
    elsewhere = Path(shutil.move(path, tmp_path / "store"))
    path.symlink_to(elsewhere)
    (tmp_path / "by-link").symlink_to(folder)
    assert len(data.load(make(tmp_path / "by-link", tmp_path / "root")).train) == 48
