"""The commands that messages suggest: each one works when it is pasted into a shell in the project folder.

A process knows how its user called it from its own command line. If it acts for an earlier command (a retry, a job on a
node), it takes the call that the sweep or pipeline has saved.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

# Options of a single call: repeating them would undo what this call did, or trust what its user has not seen.
_FOR_ONE_CALL = frozenset(
    {"--fresh", "--new-code", "--new_code", "--trust", "--dry-run", "--dry_run", "--here"}
    | {"--verbose", "-v", "--quiet", "-q"}
)
_CLUSTER = "--cluster"
# Commands of hpc.launch that submit nothing.
_WITHOUT_CLUSTER = ("status", "logs", "cancel", "tensorboard", "aggregate", "new")
# Set by bin/relay: what the user typed, and the checkout.
# What `relay` calls the commands of the checkout.
_OF_RELAY = {
    "hpc.aggregate": "aggregate",
    "src.checks": "checks",
    "src.report": "report",
    "src.train": "train",
    "src.evaluate": "evaluate",
    "src.lr_finder": "lr-sweep",
    "src.grid_search": "grid",
    "src.compare_runs": "compare",
}
_COMMAND, _HOME = "RELAY_COMMAND", "RELAY_HOME"


@dataclass(frozen=True)
class Call:
    """How a user called Relay, as sweep.yaml and pipeline.yaml save it.

    `module` (`relay` for bin/relay) and its `arguments`, without --cluster. `options`: those of them that select the
    configuration. `cluster`: the profile, None if none was chosen.
    """

    module: str = ""
    arguments: Sequence[str] = ()
    options: Sequence[str] = ()
    cluster: str | None = None


# --config and --set of this process; the profile of its command; the saved call that it acts for.
_options: Sequence[str] = ()
_default_cluster: str | None = None
_acting_for: Call | None = None


def again(*more: str, saved: Mapping[str, Any] | None = None) -> str:
    """The user's command again, with the options `more` added.

    With `saved` (the content of a sweep.yaml or pipeline.yaml), the command that made that sweep or pipeline.
    """
    call = _saved(saved) if saved else _current()
    cluster = _on(call) if _CLUSTER not in more else []
    rest = [word for word in call.arguments if word not in _FOR_ONE_CALL and word not in more]
    return python(call.module, *rest, *cluster, *more)


def command(*words: str) -> str:
    """Another command (module and arguments) with the configuration and profile of the user's command."""
    call = _current()
    submits = words[0] == "hpc.launch" and words[1] not in _WITHOUT_CLUSTER
    return python(*words, *call.options, *(_on(call) if submits else []))


def python(module: str, *words: str) -> str:
    """`python -m` the module with these words, quoted for a shell, with this process's interpreter as a path from the
    current folder. Through `relay`, if the user has called that.
    """
    if "relay" not in (module, _current().module):
        return shlex.join([_interpreter(), "-m", module, *words])
    relay = relay_command() or "relay"
    if module in ("relay", "hpc.launch"):
        return shlex.join([relay, *words])
    if module in _OF_RELAY:
        return shlex.join([relay, _OF_RELAY[module], *words])
    # The other commands are those of the checkout, from whichever folder.
    home = os.environ.get(_HOME) or str(Path(__file__).resolve().parents[1])
    return shlex.join(["env", f"PYTHONPATH={home}", "PYTHONSAFEPATH=1", sys.executable, "-m", module, *words])


def relay_command() -> str:
    """The command `relay` as its user types it; "" if this process was not started by it."""
    return os.environ.get(_COMMAND, "")


def make(*words: str) -> str:
    """`make` and these words, for what only the Makefile offers."""
    return shlex.join(["make", *words])


def typed(config: str, overrides: Iterable[str], cluster: str | None = None) -> None:
    """Remember which configuration the user named, and the profile, which some commands name by default.

    Only the command line calls this, once.
    """
    global _options, _default_cluster
    _default_cluster = cluster
    _options = ["--config", config, *(word for value in overrides for word in ("--set", value))]


@contextlib.contextmanager
def acting_for(saved: Mapping[str, Any]) -> Iterator[None]:
    """Within this context, act for the command that made the sweep or pipeline with this content of its YAML file."""
    global _acting_for
    before, _acting_for = _acting_for, _saved(saved)
    try:
        yield
    finally:
        _acting_for = before


def to_keep(name: str, cluster: str | None = None) -> dict[str, Any]:
    """The user's command, to be saved as `call` in sweep.yaml or pipeline.yaml. `cluster`: the profile of its tasks.

    `name`: the command of hpc.launch that does the same, for a process that is none of Relay's commands.
    """
    call = _current()
    if not re.fullmatch(r"relay|(hpc|src)\.\w+", call.module):
        call = Call("hpc.launch", [name.replace("_", "-"), *call.options], call.options)
    arguments = [word for word in call.arguments if word not in _FOR_ONE_CALL]
    return asdict(Call(call.module, arguments, list(call.options), cluster))


def _current() -> Call:
    if _acting_for:
        return _acting_for
    module, *words = _words_of_this_process()
    if relay_command() and module in ("hpc.launch", *_OF_RELAY):
        words = words if module == "hpc.launch" else [_OF_RELAY[module], *words]
        module = "relay"
    return Call(module, _without_cluster(words), _options, _cluster_of(words) or _default_cluster)


def _saved(saved: Mapping[str, Any]) -> Call:
    call = Call(**saved["call"])
    # This process's own options come first: the configuration file may have been renamed since.
    return replace(call, options=_options or call.options)


def _on(call: Call) -> list[str]:
    return [_CLUSTER, call.cluster] if call.cluster else []


def _words_of_this_process() -> list[str]:
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    module = spec.name.removesuffix(".__main__") if spec else Path(sys.argv[0]).stem
    return [module, *sys.argv[1:]]


def _cluster_of(words: Sequence[str]) -> str | None:
    cluster = None
    for word, following in zip(words, [*words[1:], ""], strict=False):
        if word == _CLUSTER:
            cluster = following
        elif word.startswith(f"{_CLUSTER}="):
            cluster = word.partition("=")[2]
    return cluster


def _without_cluster(words: Sequence[str]) -> list[str]:
    return [
        word
        for word, previous in zip(words, ["", *words], strict=False)
        if _CLUSTER not in (word, previous) and not word.startswith(f"{_CLUSTER}=")
    ]


def _interpreter() -> str:
    path = Path(sys.executable)
    if shutil.which("python") == str(path):
        return "python"
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def missing_checkpoint(path: Path) -> str:
    """The error message for a checkpoint that does not exist."""
    train = command("hpc.launch", "train")
    return f"{path}: no such checkpoint; give one with --checkpoint, or train first: {train}"


def without_packages() -> str:
    """The error message for a Python that lacks this project's packages."""
    root = Path(__file__).resolve().parent.parent
    python = root / ".venv" / "bin" / "python"
    shown = str(python.relative_to(Path.cwd())) if python.is_relative_to(Path.cwd()) else str(python)
    first = "" if python.exists() else f"{shlex.join(['make', '-C', str(root), 'setup'])} && "
    return (
        f"error: {sys.executable} lacks the packages of this project; to use those of its own: "
        f"{first}{shlex.join([shown, *getattr(sys, 'orig_argv', [])[1:]])}"
    )
