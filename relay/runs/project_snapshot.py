"""A user's project, frozen with a sweep, so that editing it changes none of the sweep's runs.

    <sweep>/project/<digest>/          the files, read-only, and links to what is listed in project.links
    <sweep>/project/<digest>.sha256    a line per file, whose digest is the name

Runs find it through the links of their work folders (hpc/node/supervisor.py).
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from relay.errors import ConfigError, RunError
from relay.files import remove_tree, replace_file, sync_directory
from relay.runs.code_snapshot import DIGEST_DIGITS
from relay.runs.project_files import project_files
from relay.text import shortlist

# In place of the digest of a link to a folder.
_FOLDER = "folder:"


@dataclass(frozen=True)
class ProjectFiles:
    """The files of a project as they are now, and their digests. `links`, `writes`: as in the configuration."""

    root: Path
    digests: Mapping[str, str]
    links: Sequence[str] = ()
    writes: Sequence[str] = ()

    @property
    def manifest(self) -> bytes:
        """A line per file, as sha256sum writes it, and one per link."""
        lines = [f"{digest}  {name}\n" for name, digest in self.digests.items()]
        text = "".join([*lines, *(f"link  {name}\n" for name in self.links)])
        # A name need not be UTF-8.
        return text.encode(errors="surrogateescape")

    @property
    def digest(self) -> str:
        """The name of its snapshot."""
        return hashlib.sha256(self.manifest).hexdigest()[:DIGEST_DIGITS]


def read_project(root: Path, links: Sequence[str], writes: Sequence[str], apart: Sequence[Path]) -> ProjectFiles:
    """The project in the folder `root`; `apart`: files and folders that never belong to it. Raises ConfigError."""
    links, writes = _places("project.links", links), _places("project.writes", writes)
    for name in links:
        if not (root / name).exists():
            raise ConfigError(f"project.links: {name}: {root / name} does not exist")
    digests = {}
    for name in project_files(root, links, apart):
        if any(character in name for character in "\n\r"):
            raise ConfigError(f"project: {name!r}: a line break in the name of a file; rename it")
        digests[name] = _digest_of(root / name)
    if not digests:
        raise ConfigError(f"project.path: {root}: has no files to freeze")
    return ProjectFiles(root, digests, links, writes)


def _places(key: str, given: Sequence[str]) -> tuple[str, ...]:
    """Paths below the project, none of them in another one. Raises ConfigError."""
    places = tuple(dict.fromkeys(Path(name).as_posix() for name in given))
    for name in places:
        if os.path.isabs(name) or name == "." or ".." in Path(name).parts:  # noqa: PTH117
            raise ConfigError(f"{key}: {name}: give a path below the project; a link there may lead anywhere")
        within = next((other for other in places if name.startswith(f"{other}/")), None)
        if within:
            raise ConfigError(f"{key}: {name}: lies in {within}, which is listed, too; remove one of them")
    return places


def _digest_of(path: Path) -> str:
    """Of the content of a file, with an x if it can be executed; of a link to a folder, where it leads."""
    if path.is_symlink() and path.is_dir():
        return _leads_to(path)
    executable = "x" if path.stat().st_mode & 0o100 else ""
    return hashlib.sha256(_content(path)).hexdigest() + executable


def _leads_to(link: Path) -> str:
    # Two blanks end a digest in the manifest.
    return f"{_FOLDER}{link.readlink()}".replace("  ", " ")


def keep_project(folder: Path, project: ProjectFiles) -> Path:
    """Freeze the project in `folder`. Returns the folder of its snapshot.

    Raises RunError if a file was edited since it was read.
    """
    target = folder / project.digest
    if target.is_dir() and not project_problem(target):
        return target.absolute()
    folder.mkdir(exist_ok=True)
    building = Path(tempfile.mkdtemp(dir=folder, prefix=".making-"))
    try:
        building.chmod(0o755)
        for name, digest in project.digests.items():
            source, path = project.root / name, building / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if digest.startswith(_FOLDER):
                path.symlink_to(source.readlink())
            else:
                # No fsync for each file: a snapshot is checked wherever it is used, so a torn copy is found.
                path.write_bytes(_content(source))
                path.chmod(0o555 if digest.endswith("x") else 0o444)
            if _digest_of(path) != digest and not path.is_symlink():
                raise RunError(f"{source}: was edited while this command ran; run the same command again")
        for name in project.links:
            (building / name).parent.mkdir(parents=True, exist_ok=True)
            (building / name).symlink_to((project.root / name).absolute())
        replace_file(_manifest_of(target), project.manifest)
        if target.is_dir():
            remove_tree(target)
        building.rename(target)
        for parent, _, _ in os.walk(target):
            Path(parent).chmod(0o555)
        sync_directory(folder)
    except BaseException:
        remove_tree(building)
        raise
    return target.absolute()


def is_snapshot(folder: Path) -> bool:
    """Whether a folder is a frozen project, by its name and the list beside it."""
    try:
        manifest = _manifest_of(folder).read_bytes()
    except OSError:
        return False
    return hashlib.sha256(manifest).hexdigest()[:DIGEST_DIGITS] == folder.name


def project_problem(snapshot: Path) -> str:
    """How a frozen project differs from the one that its name stands for; "" if it does not."""
    try:
        manifest = _manifest_of(snapshot).read_bytes()
        if hashlib.sha256(manifest).hexdigest()[:DIGEST_DIGITS] != snapshot.name:
            return f"{_manifest_of(snapshot).name} is not the one that was written"
        listed = _read(manifest)
        for name, digest in listed.items():
            path = snapshot / name
            if digest == "link":
                path.lstat()
            elif digest.startswith(_FOLDER):
                if not path.is_symlink() or _leads_to(path) != digest:
                    return f"{name} was changed"
            elif hashlib.sha256(path.read_bytes()).hexdigest() != digest.removesuffix("x"):
                return f"{name} was changed"
        added = sorted(_found(snapshot) - listed.keys())
        return f"{added[0]} was added" if added else ""
    except OSError as error:
        missing = Path(error.filename)
        return f"{missing.relative_to(snapshot) if missing.is_relative_to(snapshot) else missing} is missing"


def project_change(snapshot: Path, now: ProjectFiles) -> str:
    """Which files of the project differ from its snapshot; "" if none does."""
    if snapshot.name == now.digest:
        return ""
    try:
        then = _read(_manifest_of(snapshot).read_bytes())
    except OSError:
        return f"{snapshot} cannot tell what changed since"
    current = _read(now.manifest)
    changed = [name for name in sorted({*then, *current}) if then.get(name) != current.get(name)]
    return f"{shortlist(changed)} of the project changed since"


def _found(snapshot: Path) -> set[str]:
    """All files and links in a snapshot except hidden folders and Python's caches."""
    found = set()
    for parent, folders, files in os.walk(snapshot):
        here = Path(parent)
        links = [name for name in folders if (here / name).is_symlink()]
        folders[:] = [name for name in folders if name != "__pycache__" and name not in links]
        found |= {str((here / name).relative_to(snapshot)) for name in (*files, *links)}
    return {name for name in found if not name.endswith(".pyc")}


def _manifest_of(snapshot: Path) -> Path:
    return snapshot.with_name(f"{snapshot.name}.sha256")


def _read(manifest: bytes) -> dict[str, str]:
    """File -> digest, or `link`."""
    lines = manifest.decode(errors="surrogateescape").split("\n")
    pairs = [line.split("  ", 1) for line in lines if line]
    return {name: digest for digest, name in pairs}


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"project: {path}: cannot be read: {error.strerror}") from None
