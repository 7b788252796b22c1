"""A user's own code inside Relay's process: what `module:name` means in the folder of their project.

Programs run in processes of their own. Networks, data sets and optimizers are called by Relay's trainer, so their
modules share its process, and cannot have the names of its own.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import os
import re
import sys
import traceback
from pathlib import Path
from typing import Any

from relay.errors import ConfigError
from relay.program.environment import is_installed, missing_package

_NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
# What `import src` and its like mean in this process.
OURS = ("hpc", "jobs", "relay", "src", "tests")


def is_own(name: str) -> bool:
    """Whether a name in a configuration means code of the user's project: `module:name`."""
    return _NAME.fullmatch(name) is not None


def load_own(name: str, folder: str, key: str) -> Any:
    """What `module:name` means in the project in `folder`; `key` is that of the configuration, for messages.

    Raises ConfigError if there is none, if its module cannot be imported, or if it needs a module with a name of ours.
    """
    module, _, attribute = name.partition(":")
    top = module.partition(".")[0]
    if top in OURS:
        raise ConfigError(f"{key}: {name}: {_taken(top)}")
    enter_project(folder)
    try:
        # A module may change the current folder, from which Relay's paths start.
        with contextlib.chdir(Path.cwd()):
            found: Any = importlib.import_module(module)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        raise ConfigError(f"{key}: {name}: {_why_not_imported(module, folder, error)}") from None
    file = os.path.realpath(getattr(found, "__file__", None) or "")
    if not _is_in(file, folder):
        raise ConfigError(
            f"{key}: {name}: {module} is {file or 'a part of Python'}, and no module of the project {folder}; give "
            "yours another name, or set project.path to the folder that holds it"
        )
    for other, path in _files():
        is_linked = (getattr(sys.modules[other], "__file__", None) or "").startswith(f"{folder}{os.sep}")
        if is_linked and not _is_in(path, folder) and not is_installed(Path(path)):
            raise ConfigError(
                f"{key}: {name}: its code imports {other}, which lies in project.links and is not frozen with the "
                "sweep; remove it from the links"
            )
    for imported in _imports_of_project(folder):
        if imported in OURS and _has_module(folder, imported):
            raise ConfigError(f"{key}: {name}: its code imports {imported}: {_taken(imported)}")
    for part in attribute.split("."):
        there = [each for each in vars(found) if not each.startswith("_")] if hasattr(found, "__dict__") else []
        found = getattr(found, part, None)
        if found is None:
            own = [each for each in there if getattr(getattr(sys.modules[module], each, 0), "__module__", "") == module]
            raise ConfigError(
                f"{key}: {name}: {module} has no `{part}`; it has {', '.join(own) or 'nothing of its own'}"
            )
    return found


def _taken(name: str) -> str:
    return (
        f"in Relay's process, {name} is its own code; give your folder or module another name, such as my_{name}, or "
        "train with a program of your own (the section program), which has a process of its own"
    )


def enter_project(folder: str) -> None:
    """Let imports find the modules of the project in `folder` before installed ones, and those of no other project."""
    global _entered
    if _entered == folder:
        return
    if _entered is not None:
        sys.path[:] = [entry for entry in sys.path if entry != _entered]
        for name in [each for each, file in _files() if _is_in(file, _entered)]:
            del sys.modules[name]
    # Imported first, so that the project's modules of these names cannot take their places later.
    for name in OURS[:-1]:
        importlib.import_module(name)
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    _entered = folder


_entered: str | None = None


def packages_of_project(folder: str) -> list[str]:
    """The names of installed packages that the imported modules of the project import, in order."""
    installed = set()
    for name in _imports_of_project(folder):
        file = getattr(sys.modules.get(name), "__file__", None)
        if file and is_installed(Path(file)):
            installed.add(name)
    return sorted(installed)


def _files() -> list[tuple[str, str]]:
    return [
        (name, os.path.realpath(file))
        for name, module in list(sys.modules.items())
        if (file := getattr(module, "__file__", None))
    ]


def _is_in(file: str, folder: str) -> bool:
    # An environment inside the project does not belong to it.
    return file.startswith(os.path.realpath(folder) + os.sep) and not is_installed(Path(file))


def _imports_of_project(folder: str) -> set[str]:
    """The first parts of the absolute names that the imported modules of the project import."""
    names: set[str] = set()
    for _, file in _files():
        if _is_in(file, folder) and file.endswith(".py"):
            names |= _imports_of(Path(file))
    return names


def _imports_of(file: Path) -> set[str]:
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return set()
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def _has_module(folder: str, name: str) -> bool:
    return Path(folder, f"{name}.py").is_file() or Path(folder, name).is_dir()


def _why_not_imported(module: str, folder: str, error: BaseException) -> str:
    missing = error.name or "" if isinstance(error, ImportError) else ""
    if isinstance(error, ModuleNotFoundError) and missing and (module == missing or module.startswith(f"{missing}.")):
        there = sorted(path.stem for path in Path(folder).glob("*.py"))
        return f"there is no module {missing} in the project {folder}; it has {', '.join(there) or 'none'}"
    top = missing.partition(".")[0]
    if top in OURS and _has_module(folder, top):
        return f"its code imports {top}: {_taken(top)}"
    if isinstance(error, ModuleNotFoundError) and top:
        return f"it imports {missing_package(top)}"
    return f"{module} cannot be imported: {where_raised(error, folder)}"


def where_raised(error: BaseException, folder: str) -> str:
    """An error in one line, with the last place in the project's code: `ValueError: no (nets.py, line 7)`."""
    text = " ".join(str(error).split())[:500]
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {text}"
    places = [
        each for each in traceback.extract_tb(error.__traceback__) if _is_in(os.path.realpath(each.filename), folder)
    ]
    where = f" ({Path(places[-1].filename).name}, line {places[-1].lineno})" if places else ""
    return f"{type(error).__name__}: {text}{where}"
