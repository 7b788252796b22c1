"""Data sets of torchvision, read where they lie, in a process of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from relay.errors import DataError
from src.config.schema import Config
from src.data.cache import ensure, read_arrays, read_meta
from src.data.sources import SOURCES
from tests.data.images import make

PROJECT = Path(__file__).parents[2]
DRAWN = {"valid": None, "val": 2, "test": "test"}


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read in this process, which has imported torch: each other one takes seconds to do so."""
    monkeypatch.setitem(SOURCES, "torchvision", replace(SOURCES["torchvision"], own_process=False))


def config_of(root: Path, name: str, split: dict[str, Any], size: tuple[int, int] = (8, 8), **more: Any) -> Config:
    return make(f"torchvision/{name}", root, {"dataset.split": split, **more}, size)


def write_idx(path: Path, values: npt.NDArray[np.uint8]) -> None:
    """The format of MNIST: two zeros, the type, the number of dimensions, the dimensions, the bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes() + values.tobytes())


def mnist(root: Path, name: str = "MNIST") -> dict[str, npt.NDArray[np.uint8]]:
    pixels = {}
    for seed, (split, stem, count) in enumerate((("train", "train", 20), ("test", "t10k", 10))):
        pixels[split] = np.random.default_rng(seed).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        write_idx(root / name / "raw" / f"{stem}-images-idx3-ubyte", pixels[split])
        write_idx(root / name / "raw" / f"{stem}-labels-idx1-ubyte", (np.arange(count) * 3 % 10).astype(np.uint8))
    return pixels


def save(root: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (40 * number, 7, 9)).save(root / name)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST"])
def test_train_and_test_of_a_flag(tmp_path: Path, name: str):
    pixels = mnist(tmp_path, name)
    place = ensure(config_of(tmp_path, name, DRAWN, (28, 28)))
    arrays, meta = read_arrays(place), read_meta(place)
    assert list(arrays) == ["train", "test"]
    for split, expected in pixels.items():
        assert np.array_equal(arrays[split].images, np.repeat(expected[:, None], 3, axis=1))
        assert arrays[split].labels.tolist() == [n * 3 % 10 for n in range(len(expected))]
    assert meta["facts"]["train"]["modes"] == {"L": 20}
    assert meta["class_names"][3] == {"MNIST": "3 - three", "FashionMNIST": "Dress"}[name]
    assert read_meta(ensure(config_of(tmp_path, name, {**DRAWN, "test": 2})))["other_splits"] == ["test"]


def test_names_of_splits_are_passed_on(tmp_path: Path):
    save(tmp_path / "country211", "train/AD/1.jpg", "train/FR/2.jpg", "valid/FR/3.jpg", "test/AD/4.jpg")
    place = ensure(config_of(tmp_path, "Country211", {"train": "train", "val": "valid", "test": "test"}))
    assert read_meta(place)["class_names"] == ["AD", "FR"]
    assert {name: each.labels.tolist() for name, each in read_arrays(place).items()} == {
        "train": [0, 1],
        "valid": [1],
        "test": [0],
    }


def test_a_set_without_splits_has_only_train(tmp_path: Path):
    save(tmp_path / "eurosat" / "2750", "Forest/1.jpg", "River/2.jpg", "River/3.jpg")
    place = ensure(config_of(tmp_path, "EuroSAT", {"valid": None, "val": 1, "test": 0}))
    assert read_arrays(place)["train"].labels.tolist() == [0, 1, 1]
    with pytest.raises(
        DataError, match=r"EuroSAT: there is no split 'test', only train; set dataset.split.test to a num"
    ):
        ensure(config_of(tmp_path, "EuroSAT", {"valid": None, "val": 1, "test": "test"}))


def test_labels_without_names(tmp_path: Path):
    save(tmp_path / "gtsrb" / "GTSRB" / "Training", "00007/1.ppm", "00011/2.ppm", "00007/3.ppm")
    place = ensure(config_of(tmp_path, "GTSRB", {"valid": None, "val": 1, "test": 0}))
    assert read_meta(place)["class_names"] == ["0", "1"]
    assert read_arrays(place)["train"].labels.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("MNIST", {}, r"no split 'valid', only train, test; set dataset\.split\.valid to test, or set .*valid=null"),
        (
            "Country211",
            {"val": "dev", "test": 0},
            r"'dev', only train, valid, test; set dataset\.split\.val to valid or",
        ),
        ("CIFAR11", DRAWN, r"torchvision\.datasets has no CIFAR11; set it to torchvision/CIFAR10"),
        ("utils", DRAWN, r"torchvision\.datasets has no utils; set it to"),
        ("CocoDetection", DRAWN, r"CocoDetection cannot be read: it needs annFile; only images of one class each can"),
        ("FakeData", DRAWN, r"FakeData cannot be read: it lies in no folder"),
        ("ImageFolder", DRAWN, r"set it to the folder itself"),
        ("EMNIST", {**DRAWN, "test": 0}, r"no split 'train', only byclass, bymerge, balanced, letters, digits, mnist"),
    ],
)
def test_names_that_mean_nothing_are_refused(tmp_path: Path, name: str, split: dict[str, Any], message: str):
    with pytest.raises(DataError, match=message):
        ensure(config_of(tmp_path, name, split))
    assert [path.suffix for path in (tmp_path / "decoded").iterdir()] == [".lock"]


def spoil_cifar(root: Path) -> None:
    """Batches of the right names, which are not those that torchvision knows the checksums of."""
    (root / "cifar-10-batches-py").mkdir()
    for name in ("test_batch", "batches.meta", *(f"data_batch_{number}" for number in range(1, 6))):
        (root / "cifar-10-batches-py" / name).write_bytes(b"another")


def leave_empty(root: Path) -> None:
    pass


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("name", "prepare", "place"),
    [
        (
            "CIFAR10",
            leave_empty,
            r"cifar-10-batches-py there, as torchvision\.datasets\.CIFAR10\('.*', download=True\)",
        ),
        ("CIFAR10", spoil_cifar, "not found or corrupted.*cifar-10-batches-py there"),
        ("MNIST", leave_empty, r"MNIST/raw there, as torchvision\.datasets\.MNIST\("),
        ("SEMEION", leave_empty, r"not found or corrupted.*put its files there, as torchvision\.datasets\.SEMEION\("),
        ("FER2013", leave_empty, "put its files there, or set dataset.root to where it lies"),
    ],
)
def test_what_is_not_there_is_not_downloaded(tmp_path: Path, name: str, prepare: Callable[[Path], None], place: str):
    prepare(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=rf"cannot read split 'train' in dataset\.root, {tmp_path}: .*{place}"):
        ensure(config_of(tmp_path, name, {"valid": None, "val": 2, "test": 0}))
    assert [path for path in sorted(tmp_path.rglob("*")) if "decoded" not in path.parts] == before


def test_targets_that_are_no_class_are_refused(tmp_path: Path):
    flowers = tmp_path / "VOCdevkit" / "VOC2012"
    for name in ("JPEGImages/a.jpg", "SegmentationClass/a.png"):
        save(flowers, name)
    (flowers / "ImageSets" / "Segmentation").mkdir(parents=True)
    (flowers / "ImageSets" / "Segmentation" / "train.txt").write_text("a\n")
    with pytest.raises(
        DataError, match=r"VOCSegmentation is no data set of images of one .*are \(Image, PngImageFile\)"
    ):
        ensure(config_of(tmp_path, "VOCSegmentation", {"valid": None, "val": 2, "test": 0}))


@pytest.mark.usefixtures("here")
def test_a_damaged_image_is_named(tmp_path: Path):
    save(tmp_path / "eurosat" / "2750", "Forest/1.jpg", "River/2.jpg", "River/3.jpg")
    (tmp_path / "eurosat" / "2750" / "River" / "3.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"EuroSAT: split 'train', image 2 cannot be read: UnidentifiedImageError"):
        ensure(config_of(tmp_path, "EuroSAT", {"valid": None, "val": 1, "test": 0}))


@pytest.mark.usefixtures("here")
def test_images_are_upright(tmp_path: Path):
    save(tmp_path / "eurosat" / "2750", "Forest/1.jpg", "River/2.jpg")
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 250
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(pixels).save(tmp_path / "eurosat" / "2750" / "River" / "2.jpg", exif=exif, quality=95)
    place = ensure(config_of(tmp_path, "EuroSAT", {"valid": None, "val": 1, "test": 0}))
    image = read_arrays(place)["train"].images[1]
    assert image[:, 7].min() > 200 > 50 > image[:, 0].max()
    assert read_meta(place)["facts"]["train"]["changes"] == {"turned upright": 1}


# The process


def test_the_process_that_plans_imports_no_torch(tmp_path: Path):
    mnist(tmp_path)
    code = f"""
    import json, sys
    from src.config.loading import make_config
    from src.data.cache import ensure
    from relay.log import start_log
    start_log()
    ensure(make_config(json.loads({json.dumps(config_of(tmp_path, "MNIST", DRAWN).to_dict())!r}), "test"))
    print(sorted({{"torch", "torchvision", "PIL", "datasets"}} & set(sys.modules)))
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
    assert "decoding 30 images of torchvision/MNIST into" in done.stderr
    assert "decoding test: 10 of 10" in done.stderr, "progress passes through"


@pytest.fixture
def own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes the other process import this code in place of torchvision."""

    def make_package(code: str) -> None:
        (tmp_path / "packages" / "torchvision").mkdir(parents=True)
        (tmp_path / "packages" / "torchvision" / "__init__.py").write_text(textwrap.dedent(code))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))

    return make_package


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
            "was ended by SIGKILL; it may have needed more mem",
        ),
        ("import os; os.abort()", "was ended by SIGABRT$"),
        ("import os; os._exit(7)", "ended with exit code 7$"),
        ("raise RuntimeError('no luck')", "torchvision/MNIST: cannot be read: RuntimeError: no luck$"),
        ("print('x' * 100_000); raise KeyError('no luck')", "cannot be read: KeyError: 'no luck'$"),
    ],
)
def test_a_crash_is_one_message(
    tmp_path: Path, own_package: Callable[[str], None], code: str, message: str, capfd: pytest.CaptureFixture[str]
):
    own_package(code)
    with pytest.raises(DataError, match=message):
        ensure(config_of(tmp_path, "MNIST", DRAWN))
    assert "Traceback" not in capfd.readouterr().err
    assert [path.suffix for path in (tmp_path / "decoded").iterdir()] == [".lock"]


def test_the_process_ends_with_the_one_that_plans(tmp_path: Path, own_package: Callable[[str], None]):
    own_package(f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)")
    code = (
        "import json\nfrom src.config.loading import make_config\nfrom src.data.cache import ensure\n"
        f"ensure(make_config({config_of(tmp_path, 'MNIST', DRAWN).to_dict()!r}, 'test'))"
    )
    path = os.pathsep.join([str(PROJECT), os.environ["PYTHONPATH"]])
    with subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}) as planner:
        deadline = time.monotonic() + 30
        while not (tmp_path / "pid").is_file() or not (tmp_path / "pid").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        planner.send_signal(signal.SIGKILL)
    child = Path("/proc") / (tmp_path / "pid").read_text()
    while child.exists() and "Z" not in (child / "stat").read_text().rpartition(")")[2].split()[0]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
