"""Decodes a data set into a folder of the cache, in this process or in one of its own: `python -m src.data.build`."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from relay.errors import DataError, RelayError
from relay.files import sync_directory
from relay.log import log, start_log
from relay.runs.code_snapshot import PROJECT_ROOT, python_path
from relay.text import brief, shortlist
from src.config.loading import make_config
from src.config.schema import Config
from src.data.decoding import Decoded, EncodedSplit, ValueSplit
from src.data.sources import source_of

_BATCH = 256
# Of the labels and digests, per image.
_BYTES_BESIDE_PIXELS = 16


def files_of(splits: int) -> list[str]:
    """The files of a cache of so many splits. Numbers, because a split may have any name."""
    return [f"{number}_{array}.npy" for number in range(splits) for array in ("images", "labels", "digests")]


def file_digest(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unwritable(folder: Path, error: OSError) -> DataError:
    """The error that a cache folder cannot be written."""
    return DataError(f"{folder}: cannot be written: {error.strerror or error}; free some space or set dataset.root")


def decoded_size(config: Config, images: int) -> int:
    """How many bytes so many images take on the disk once they are decoded."""
    height, width = config.preprocess.resize
    return images * (config.preprocess.channels * height * width + _BYTES_BESIDE_PIXELS)


def gigabytes(size: int) -> str:
    """A size in bytes as text."""
    return f"{size / 1e9:.2f} GB" if size >= 1e7 else "less than 0.01 GB"


def build_apart(config: Config, identity: dict[str, Any], folder: Path) -> None:
    """As `build`, in a process of its own, for a source that imports what this one must not have or survive.

    Its log goes where that of this process goes. It ends with this process. Raises DataError also if it crashes.
    """
    asked = {"config": config.to_dict(), "identity": identity, "folder": str(folder), "level": log.level}
    with subprocess.Popen(
        [sys.executable, "-m", "src.data.build"],
        env={**os.environ, **python_path(PROJECT_ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            # If it has died already, its exit code says so.
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps(asked) + "\n")
                process.stdin.flush()
            problem = process.stdout.read()
            code = process.wait()
        except BaseException:
            process.kill()
            raise
    if problem:
        raise DataError(problem)
    if code < 0:
        advice = "; it may have needed more memory than there is" if -code == signal.SIGKILL else ""
        raise DataError(f"{config.dataset.name}: the process that reads it was ended by {_signal(-code)}{advice}")
    if code:
        raise DataError(f"{config.dataset.name}: the process that reads it ended with exit code {code}")


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _main() -> None:
    """`build` as stdin asks. The message of a problem goes to stdout, and what libraries print there to stderr."""
    # Ctrl-C reaches both processes; the other one ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    asked = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    start_log(asked["level"])
    config, folder = make_config(asked["config"], "the configuration"), Path(asked["folder"]).absolute()
    try:
        build(config, asked["identity"], folder)
    except RelayError as error:
        problem = str(error)
    except OSError as error:
        problem = str(unwritable(folder, error))
    except Exception as error:  # the source's library may raise anything
        log.debug("", exc_info=True)
        problem = f"{config.dataset.name}: cannot be read: {brief(error)}"
    else:
        return
    with answer:
        answer.write(problem)
    sys.exit(2)


def _end_with_parent() -> None:
    """End this process once the other end of stdin is closed, as it is when the parent dies."""
    # Not sys.stdin, whose lock would be held while this process ends.
    while os.read(0, 1024):
        pass
    os._exit(1)


def build(config: Config, identity: dict[str, Any], folder: Path) -> None:
    """Decode the splits of a configuration into `folder`, and write meta.json, with its `identity`, last.

    Raises DataError if the source does not have them, or if the disk is too small for them.
    """
    source, scratch = source_of(config.dataset), folder / "source"
    found, splits, others = source.open_splits(config, scratch)
    class_names, names = _class_names(config, found), list(config.dataset.split.names)
    _check_sizes(config, folder, dict(zip(names, splits, strict=True)))
    facts = {
        name: _decode_split(split, folder, number, config)
        for number, (name, split) in enumerate(zip(names, splits, strict=True))
    }
    # datasets maps the files in `scratch` into memory; release them before they are removed.
    del splits
    shutil.rmtree(scratch, ignore_errors=True)
    files = {
        name: {"size": (folder / name).stat().st_size, "sha256": file_digest(folder / name)}
        for name in files_of(len(names))
    }
    meta = {
        "identity": identity,
        "class_names": class_names,
        "splits": names,
        "other_splits": others,
        "contents": source.contents(config),
        "facts": facts,
        "files": files,
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")
    # Durable before the rename: a power cut must not leave the final name with incomplete files.
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sync_directory(folder)


def _check_sizes(config: Config, folder: Path, splits: Mapping[str, EncodedSplit]) -> None:
    """Log what is decoded. Raises DataError if a split is empty or the disk is too small."""
    for name, split in splits.items():
        if not len(split):
            raise DataError(f"{config.dataset.name}: split {name!r} has no images; add some, or name another split")
    images, free = sum(map(len, splits.values())), shutil.disk_usage(folder).free
    values = [split.values.nbytes for split in splits.values() if isinstance(split, ValueSplit)]
    size = sum(values) or decoded_size(config, images)
    what = f"keeping {images:,} inputs" if values else f"decoding {images:,} images"
    height, width = config.preprocess.resize
    each = "" if values else f", {height}x{width} pixels each"
    log.info(f"{what} of {config.dataset.name} into {folder.parent}: {gigabytes(size)}{each}")
    if size > free:
        raise DataError(
            f"dataset.root: the decoded images of {config.dataset.name} take {gigabytes(size)}, and {folder.parent} "
            f"has {gigabytes(free)} free; set dataset.root to a larger disk, or preprocess.resize to smaller images"
        )


def _class_names(config: Config, found: list[str]) -> list[str]:
    """Those of the configuration, if it has any, in place of the source's. Raises DataError if they do not fit."""
    given = config.dataset.class_names
    if len(found) < 2:
        raise DataError(
            f"{config.dataset.name}: split {config.dataset.split.train!r} has too few classes: {len(found)} "
            f"({shortlist(found)}); at least two are needed"
        )
    if given is None:
        return found
    if len(given) != len(found):
        raise DataError(
            f"dataset.class_names: {len(given)} names, but {config.dataset.name} has {len(found)} classes: "
            f"{shortlist(found, 10)}; give a name for each of them, in this order"
        )
    return list(given)


def _decode_split(split: EncodedSplit, folder: Path, number: int, config: Config) -> dict[str, Any]:
    """Write the three arrays of a split. Returns counts of images, modes, sizes and conversions."""
    if isinstance(split, ValueSplit):
        return _keep_values(split, folder, number)
    preprocess, workers = config.preprocess, config.dataset.num_workers
    decoder = split.decoder(preprocess.resize, preprocess.mode)
    images = _new_array(folder / f"{number}_images.npy", (len(split), preprocess.channels, *preprocess.resize))
    labels, digests = np.empty(len(split), dtype=np.int64), np.empty(len(split), dtype=np.uint64)
    modes: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    changes: Counter[str] = Counter()
    done = 0
    with contextlib.ExitStack() as stack:
        run = stack.enter_context(ThreadPoolExecutor(workers)).map if workers else map
        for encoded, batch_labels in split.batches(_BATCH):
            decoded: Iterable[Decoded] = run(decoder, range(done, done + len(encoded)), encoded)
            for offset, image in enumerate(decoded):
                images[done + offset] = image.pixels
                # 8 bytes: of a million different images, two have the same with a probability of 3e-8.
                digests[done + offset] = int.from_bytes(blake2b(image.pixels.tobytes(), digest_size=8).digest())
                modes[image.mode] += 1
                changes.update([image.change] if image.change else [])
                sizes["{}x{}".format(*image.size)] += 1
            labels[done : done + len(encoded)] = batch_labels
            before, done = done, done + len(encoded)
            if done == len(split) or done // 4000 > before // 4000:
                log.info(f"decoding {split.name}: {done} of {len(split)}")
    images.flush()
    np.save(folder / f"{number}_labels.npy", labels)
    np.save(folder / f"{number}_digests.npy", digests)
    return {"count": len(split), "modes": dict(modes), "sizes": dict(sizes), "changes": dict(changes)}


def _keep_values(split: ValueSplit, folder: Path, number: int) -> dict[str, Any]:
    """Write the three arrays of a split that has no images; its type and shape take the places of mode and size."""
    digests = [int.from_bytes(blake2b(row.tobytes(), digest_size=8).digest()) for row in split.values]
    np.save(folder / f"{number}_images.npy", np.ascontiguousarray(split.values))
    np.save(folder / f"{number}_labels.npy", split.labels)
    np.save(folder / f"{number}_digests.npy", np.array(digests, dtype=np.uint64))
    shape = "x".join(map(str, split.values.shape[1:]))
    return {
        "count": len(split),
        "modes": {str(split.values.dtype): len(split)},
        "sizes": {shape: len(split)},
        "changes": {},
    }


def _new_array(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.uint8]]:
    """A memory-mapped array with all its blocks allocated.

    Without them, a write to the mapping of a full disk ends the process with SIGBUS. This way it is an OSError here.
    """
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    if hasattr(os, "posix_fallocate"):  # Missing on macOS.
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


if __name__ == "__main__":
    _main()
