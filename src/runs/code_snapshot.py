"""The code that a sweep is made with, kept in the sweep, so that editing the checkout changes none of its runs.

    <sweep>/code/<digest>/       src/ jobs/ hpc/  code.sha256 (a line per file)  code_version.json (where it is from)
    <sweep>/code/<digest>.diff   what the checkout had changed against its commit, where it had

The digest is that of `code.sha256`, so a snapshot can be checked wherever it is used, also with `sha256sum` alone.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shlex
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src import hints
from src.config import yaml_file
from src.errors import RunError
from src.files import replace_file, sync_directory
from src.log import log
from src.runs.provenance import SNAPSHOT_VERSION, code_diff, code_version
from src.runs.rundir import SweepDir
from src.text import shortlist

PROJECT_ROOT = Path(__file__).resolve().parents[2]
MANIFEST = "code.sha256"
DIGEST_DIGITS = 12
_LAYERS = ("src", "jobs", "hpc")
# A pickled task names its class by module (pickle stores no code), so a snapshot can execute our tasks only if it has
# this file. Snapshots made before the class moved here do not: their tasks would end with ModuleNotFoundError.
_TASK_FILE = "hpc/node/task.py"
# For find: what Python imports nothing from by name.
_HIDDEN = r"\( -name __pycache__ -o -name '.?*' \)"
# Where the code lies that decides results. The rest names, shows, submits and reports.
_DECIDING = ("src/config/", "src/data/", "src/models/", "src/training/")


def new_code_hint(kept: Mapping[str, Any] | None = None) -> str:
    """The two ways to the code as it is now; `kept` as in `hints.again`."""
    anew = hints.again("--fresh", kept=kept)
    return f"to continue with the changed code: {hints.again('--new-code', kept=kept)}; to start over with it: {anew}"


def code_digest(root: Path | None = None) -> str:
    """The name of the snapshot of the code below `root`, that of this process unless another is given.

    The code is read once in a process; `keep_code` refuses to keep what was edited since.
    """
    return _digest(_manifest(root or PROJECT_ROOT))


def keep_code(folder: Path, root: Path | None = None) -> Path:
    """Keep the code below `root` in `folder`. Returns the snapshot, from which `python -m` finds the code.

    A snapshot that is there already is checked, and what was changed in it is put right. Raises RunError if the code
    was edited after this process has read it.
    """
    root = root or PROJECT_ROOT
    manifest = _manifest(root)
    target = folder / _digest(manifest)
    if target.is_dir() and not snapshot_problem(target):
        return target.absolute()
    folder.mkdir(exist_ok=True)
    building = Path(tempfile.mkdtemp(dir=folder, prefix=".making-"))
    try:
        building.chmod(0o755)
        for name in _read(manifest):
            copy = building / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            # Not made durable one by one: whoever uses a snapshot checks it.
            shutil.copyfile(root / name, copy)
        if _read_manifest(building) != manifest:
            raise RunError(f"{root}: its code was edited while this command ran; run the same command again")
        (building / MANIFEST).write_bytes(manifest)
        (building / SNAPSHOT_VERSION).write_text(yaml_file.json_text(code_version(root)))
        diff = _diff_of(root)
        if diff:
            replace_file(target.with_suffix(".diff"), diff)
        if target.is_dir():
            log.warning(f"{target}: {snapshot_problem(target)}; it is made again")
            shutil.rmtree(target, ignore_errors=True)
        building.rename(target)
        sync_directory(folder)
    except BaseException as error:
        shutil.rmtree(building, ignore_errors=True)
        # Another submitter of the same code was faster.
        if not (isinstance(error, OSError) and target.is_dir() and not snapshot_problem(target)):
            raise
    return target.absolute()


def snapshot_problem(path: Path) -> str:
    """What keeps a snapshot from being the code that its name promises; "" if nothing does."""
    try:
        manifest = (path / MANIFEST).read_bytes()
        if _digest(manifest) != path.name:
            return f"{MANIFEST} is not the one that was written"
        kept = _read(manifest)
        for name, digest in kept.items():
            if hashlib.sha256((path / name).read_bytes()).hexdigest() != digest:
                return f"{name} was changed"
        (path / SNAPSHOT_VERSION).stat()
        extra = sorted(_others(path) - {*kept, MANIFEST, SNAPSHOT_VERSION})
        if extra:
            return f"{extra[0]} was added"
    except (OSError, ValueError) as error:
        missing = getattr(error, "filename", None)
        return f"{Path(missing).relative_to(path)} is missing" if missing else f"{MANIFEST} cannot be read"
    return ""


def sweep_code(sweep: SweepDir) -> Path:
    """The snapshot that the sweep is executed with; for a sweep that has none, that of the code as it is now.

    Raises RunError if it is gone, was changed, or was made by a version whose code this one cannot start.
    """
    digest = sweep.meta().get("snapshot")
    if not digest:
        return use_new_code(sweep)
    path = (sweep.code / str(digest)).absolute()
    problem = snapshot_problem(path)
    if problem:
        raise RunError(
            f"{path}: is not the code that {sweep.name} was made with: {problem}; restore it; "
            f"{new_code_hint(sweep.meta())}"
        )
    check_startable(path, sweep.name, sweep.meta())
    return path


def check_startable(snapshot: Path, name: str, kept: Mapping[str, Any]) -> None:
    """Raise RunError if `name` has a snapshot in which a task of this version could not start; `kept` as in
    `hints.again`.
    """
    if snapshot.is_dir() and not (snapshot / _TASK_FILE).is_file():
        raise RunError(
            f"{name}: was made by an earlier version of Relay, whose code this version cannot start; to continue with "
            f"the current code: {hints.again('--new-code', kept=kept)}; to start over: "
            f"{hints.again('--fresh', kept=kept)}"
        )


def use_new_code(sweep: SweepDir) -> Path:
    """Execute the sweep with the code as it is now from here on. Returns its snapshot."""
    path = keep_code(sweep.code)
    content = {**sweep.meta(), "code": code_version(path), "snapshot": path.name}
    replace_file(sweep.meta_file, yaml_file.dump_yaml(content))
    return path


def code_change(sweep: SweepDir, root: Path | None = None) -> str:
    """What decides results and differs between the sweep's snapshot and the code below `root`, in a few words; "" if
    nothing does, or the sweep has no snapshot yet.
    """
    digest = sweep.meta().get("snapshot")
    return change_since(sweep.code / str(digest), root) if digest else ""


def change_since(snapshot: Path, root: Path | None = None) -> str:
    """The same for a snapshot. One that cannot be compared any more may be anything, so it counts as different."""
    if snapshot.name == code_digest(root):
        return ""
    problem = snapshot_problem(snapshot)
    if problem:
        return f"{snapshot} cannot tell what changed since: {problem}"
    kept, now = _read((snapshot / MANIFEST).read_bytes()), _read(_manifest(root or PROJECT_ROOT))
    changed = [name for name in sorted({*kept, *now}) if name.startswith(_DECIDING) and kept.get(name) != now.get(name)]
    return f"{shortlist(changed)} changed since" if changed else ""


def check_commands(snapshot: Path) -> list[str]:
    """Shell commands that go into the snapshot, or end with a reason where it is not what its name promises."""
    root, digest = shlex.quote(str(snapshot)), snapshot.name
    listed = f'[ "$(sha256sum < {MANIFEST} | cut -c1-{len(digest)})" = {digest} ]'
    # As in `_others`: the listed files, the list itself and the version, and no file more.
    alone = f"[ $(find . {_HIDDEN} -prune -o ! -type d -print | wc -l) -eq $(($(wc -l < {MANIFEST}) + 2)) ]"
    reason = f"error: the code of these runs is gone or was changed: {snapshot}; restore it; {new_code_hint()}"
    return [
        f"cd {root} && {listed} && sha256sum --quiet --check {MANIFEST} && {alone} \\",
        f"    || {{ echo {shlex.quote(reason)} >&2; exit 3; }}",
        f'export PYTHONPATH={root}"${{PYTHONPATH:+:$PYTHONPATH}}" PYTHONSAFEPATH=1',
    ]


def _others(path: Path) -> set[str]:
    """All files below `path` but hidden ones and Python's caches: an added package would be imported before a file."""
    found = set()
    for folder, folders, files in os.walk(path):
        folders[:] = [name for name in folders if not (name == "__pycache__" or name.startswith("."))]
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        found |= {str((Path(folder) / name).relative_to(path)) for name in (*files, *links) if not name.startswith(".")}
    return found


def _diff_of(root: Path) -> bytes:
    """The diff of the code below `root`; of a snapshot, the one that was kept beside it."""
    if (root / SNAPSHOT_VERSION).is_file():
        beside = root.with_suffix(".diff")
        return beside.read_bytes() if beside.is_file() else b""
    return code_diff(root)


@functools.cache
def _manifest(root: Path) -> bytes:
    return _read_manifest(root)


def _read_manifest(root: Path) -> bytes:
    """A line per Python file, as sha256sum writes it: digest, two spaces, path below `root`."""
    files = [path for layer in _LAYERS for path in sorted((root / layer).rglob("*.py"))]
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(root)}\n" for path in files]
    return "".join(lines).encode()


def _digest(manifest: bytes) -> str:
    return hashlib.sha256(manifest).hexdigest()[:DIGEST_DIGITS]


def _read(manifest: bytes) -> Mapping[str, str]:
    """File -> digest. Raises ValueError."""
    pairs = [line.split("  ", 1) for line in manifest.decode().splitlines()]
    return {name: digest for digest, name in pairs}
