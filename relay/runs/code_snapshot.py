"""A snapshot of the code, saved in each sweep, so that editing the checkout changes none of its runs.

    <sweep>/code/<digest>/       relay/ src/ jobs/ hpc/  code.sha256 (a line per file)  code_version.json (its commit)
    <sweep>/code/<digest>.diff   the uncommitted changes of the checkout, if there were any

The digest is that of `code.sha256`, so a job can check a snapshot with `sha256sum` before it starts any Python.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shlex
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from relay import hints
from relay.config import yaml_file
from relay.errors import RunError
from relay.files import replace_file, sync_directory
from relay.log import log
from relay.runs.code_files import code_files
from relay.runs.provenance import SNAPSHOT_VERSION, code_diff, code_version
from relay.runs.rundir import SweepDir
from relay.text import shortlist

PROJECT_ROOT = Path(__file__).resolve().parents[2]
MANIFEST = "code.sha256"
DIGEST_DIGITS = 12
# For find: files that no import statement can name.
_HIDDEN = r"\( -name __pycache__ -o -name '.?*' \)"


def new_code_hint(saved: Mapping[str, Any] | None = None) -> str:
    """The two commands that use the current code; `saved` as in `hints.again`."""
    continued, fresh = (hints.again(option, saved=saved) for option in ("--new-code", "--fresh"))
    return f"to continue with the changed code: {continued}; to start over with it: {fresh}"


def code_digest(root: Path | None = None) -> str:
    """The name of the snapshot of the code below `root`; the code of this process by default.

    The code is read once per process, and `keep_code` raises RunError if it was edited since.
    """
    return _digest(_manifest(root or PROJECT_ROOT))


def keep_code(folder: Path, root: Path | None = None) -> Path:
    """Save the code below `root` in `folder`. Returns the folder of the snapshot, from which `python -m` runs it.

    An existing snapshot is checked, and replaced if it was changed. Raises RunError if the code was edited after this
    process read it.
    """
    root = root or PROJECT_ROOT
    manifest = _manifest(root)
    target = folder / _digest(manifest)
    if target.is_dir() and not snapshot_problem(target):
        return target.absolute()
    folder.mkdir(exist_ok=True)
    building = Path(tempfile.mkdtemp(dir=folder, prefix=".making-"))
    try:
        # mkdtemp(3) creates a folder that only its owner can read.
        building.chmod(0o755)
        listed = _read(manifest)
        for parent in {(building / name).parent for name in listed}:
            parent.mkdir(parents=True, exist_ok=True)
        for name, digest in listed.items():
            content = _content(root, name)
            if hashlib.sha256(content).hexdigest() != digest:
                raise _edited(root)
            # No fsync for each file: a snapshot is checked wherever it is used, so a torn copy is found.
            (building / name).write_bytes(content)
        (building / MANIFEST).write_bytes(manifest)
        version = code_version(root)
        if version.get("unknown"):
            log.warning(f"{root}: the commit of the code is not recorded: {version['unknown']}")
        (building / SNAPSHOT_VERSION).write_text(yaml_file.json_text(version))
        diff = _diff_of(root)
        if diff:
            replace_file(target.with_suffix(".diff"), diff)
        if target.is_dir():
            log.warning(f"{target}: {snapshot_problem(target)}; it is replaced")
            shutil.rmtree(target, ignore_errors=True)
        building.rename(target)
        sync_directory(folder)
    except BaseException as error:
        shutil.rmtree(building, ignore_errors=True)
        # If rename() failed because another launch saved the same code first, its snapshot is as good.
        if not (isinstance(error, OSError) and target.is_dir() and not snapshot_problem(target)):
            raise
    return target.absolute()


def snapshot_problem(path: Path) -> str:
    """How a snapshot differs from the code that its name stands for; "" if it does not."""
    try:
        manifest = (path / MANIFEST).read_bytes()
        if _digest(manifest) != path.name:
            return f"{MANIFEST} is not the one that was written"
        listed = _read(manifest)
        for name, digest in listed.items():
            if hashlib.sha256((path / name).read_bytes()).hexdigest() != digest:
                return f"{name} was changed"
        (path / SNAPSHOT_VERSION).stat()
        extra = sorted(_others(path) - {*listed, MANIFEST, SNAPSHOT_VERSION})
        if extra:
            return f"{extra[0]} was added"
    except (OSError, ValueError) as error:
        missing = getattr(error, "filename", None)
        return f"{Path(missing).relative_to(path)} is missing" if missing else f"{MANIFEST} cannot be read"
    return ""


def sweep_code(sweep: SweepDir) -> Path:
    """The snapshot with which the sweep is executed. Raises RunError if it is missing or was changed."""
    path: Path = (sweep.code / sweep.meta()["snapshot"]).absolute()
    problem = snapshot_problem(path)
    if problem:
        raise RunError(
            f"{path}: is no longer the code of {sweep.name}: {problem}; restore it; {new_code_hint(sweep.meta())}"
        )
    return path


def use_new_code(sweep: SweepDir, **more: Any) -> Path:
    """Execute the sweep with the current code from now on; `more` entries of sweep.yaml change with it.

    Returns the folder of its snapshot.
    """
    path = keep_code(sweep.code)
    content = {**sweep.meta(), "code": code_version(path), "snapshot": path.name, **more}
    replace_file(sweep.meta_file, yaml_file.dump_yaml(content))
    return path


def code_change(sweep: SweepDir, deciding: Sequence[str], root: Path | None = None) -> str:
    """Which files differ between the sweep's snapshot and the code below `root`, of those whose path begins as one of
    `deciding`: those that can change results. "" if none does.
    """
    return change_since(sweep.code / sweep.meta()["snapshot"], deciding, root)


def change_since(snapshot: Path, deciding: Sequence[str], root: Path | None = None) -> str:
    """`code_change` for the folder of a snapshot. A damaged snapshot counts as different."""
    if snapshot.name == code_digest(root):
        return ""
    problem = snapshot_problem(snapshot)
    if problem:
        return f"{snapshot} cannot tell what changed since: {problem}"
    then, now = _read((snapshot / MANIFEST).read_bytes()), _read(_manifest(root or PROJECT_ROOT))
    changed = [
        name for name in sorted({*then, *now}) if name.startswith(tuple(deciding)) and then.get(name) != now.get(name)
    ]
    return f"{shortlist(changed)} changed since" if changed else ""


def check_commands(snapshot: Path) -> list[str]:
    """Shell commands that enter the snapshot and put it on PYTHONPATH. They exit with 3 if it is not intact."""
    root, digest = shlex.quote(str(snapshot)), snapshot.name
    listed = f'[ "$(sha256sum < {MANIFEST} | cut -c1-{len(digest)})" = {digest} ]'
    # As in `_others`: no files except the listed ones, the list itself and the version.
    alone = f"[ $(find . {_HIDDEN} -prune -o ! -type d -print | wc -l) -eq $(($(wc -l < {MANIFEST}) + 2)) ]"
    reason = f"error: the code of these runs is gone or was changed: {snapshot}; restore it; {new_code_hint()}"
    # PYTHONSAFEPATH (Python 3.11): `python -m` would otherwise put the current folder in front of PYTHONPATH.
    return [
        f"cd {root} && {listed} && sha256sum --quiet --check {MANIFEST} && {alone} \\",
        f"    || {{ echo {shlex.quote(reason)} >&2; exit 3; }}",
        f'export PYTHONPATH={root}"${{PYTHONPATH:+:$PYTHONPATH}}" PYTHONSAFEPATH=1',
    ]


def python_path(code: Path) -> dict[str, str]:
    """The variables with which `python -m` executes the code below `code`, for a process that this one starts."""
    # PYTHONSAFEPATH: `python -m` would otherwise put the current folder first, with modules that may have our names.
    before = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": f"{code}{os.pathsep}{before}" if before else str(code), "PYTHONSAFEPATH": "1"}


def _others(path: Path) -> set[str]:
    """All files below `path` except hidden ones and Python's caches.

    An added package `src/train/` would be imported instead of the listed file `src/train.py`.
    """
    others = set()
    for folder, folders, files in os.walk(path):
        folders[:] = [name for name in folders if not (name == "__pycache__" or name.startswith("."))]
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        others |= {
            str((Path(folder) / name).relative_to(path)) for name in (*files, *links) if not name.startswith(".")
        }
    return others


def _diff_of(root: Path) -> bytes:
    """The uncommitted changes of the code below `root`; for a snapshot, those saved beside it."""
    if (root / SNAPSHOT_VERSION).is_file():
        beside = root.with_suffix(".diff")
        return beside.read_bytes() if beside.is_file() else b""
    return code_diff(root)


@functools.cache
def _manifest(root: Path) -> bytes:
    return _read_manifest(root)


def _read_manifest(root: Path) -> bytes:
    """One line per Python file, as sha256sum writes it: digest, two spaces, path below `root`."""
    lines = [f"{hashlib.sha256(_content(root, name)).hexdigest()}  {name}\n" for name in code_files(root)]
    return "".join(lines).encode()


def _content(root: Path, name: str) -> bytes:
    try:
        return (root / name).read_bytes()
    except OSError:
        # It could be read when the files were listed.
        raise _edited(root) from None


def _edited(root: Path) -> RunError:
    return RunError(f"{root}: its code was edited while this command ran; run the same command again")


def _digest(manifest: bytes) -> str:
    return hashlib.sha256(manifest).hexdigest()[:DIGEST_DIGITS]


def _read(manifest: bytes) -> Mapping[str, str]:
    """File -> digest. Raises ValueError."""
    pairs = [line.split("  ", 1) for line in manifest.decode().splitlines()]
    return {name: digest for digest, name in pairs}
