"""The commands that messages suggest: each one works when it is pasted into a shell in the project folder.

A process knows how its user called it from its own command line and the configuration it loaded. If it acts for an
earlier command (a retry, a job on a node), it takes the call that the sweep or pipeline has saved.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

# Options of a single call: repeating them would undo what this call did.
_FOR_ONE_CALL = frozenset({"--fresh", "--new-code", "--new_code", "--verbose", "-v", "--quiet", "-q"})
_CLUSTER = "--cluster"
# Commands of hpc.launch that submit nothing.
_WITHOUT_CLUSTER = ("status", "logs", "cancel")
# The user's call: `words` are the module and its arguments, `options` select the configuration.
_call: dict[str, list[str]] = {}


def again(*more: str, saved: Mapping[str, Any] | None = None) -> str:
    """The user's command again, with the options `more` added.

    With `saved` (the content of a sweep.yaml or chain.yaml), the command that made that sweep or pipeline.
    """
    words = (_saved_call(saved) if saved else _call).get("words") or _words_of_this_process()
    cluster = _cluster_of(words) if _CLUSTER not in more else []
    # A foreground evaluation is always fresh and has no such option.
    added = [word for word in more if not (words[0] == "src.evaluate" and word == "--fresh")]
    rest = [word for word in _without_cluster(words) if word not in _FOR_ONE_CALL and word not in more]
    return python(*rest, *cluster, *added)


def command(*words: str) -> str:
    """Another command (module and arguments) with the configuration and profile of the user's command."""
    own = _call.get("words") or _words_of_this_process()
    placed = _cluster_of(own) or ([_CLUSTER, "local"] if own[0].startswith("src.") else [])
    submits = words[0] == "hpc.launch" and words[1] not in _WITHOUT_CLUSTER
    return python(*words, *_call.get("options", []), *(placed if submits else []))


def python(*words: str) -> str:
    """`python -m` and these words, quoted for a shell, with this process's interpreter as a path from the current
    folder.
    """
    return shlex.join([_interpreter(), "-m", *words])


def make(*words: str) -> str:
    """`make` and these words, for what only the Makefile offers."""
    return shlex.join(["make", *words])


def loaded(config: str, overrides: Iterable[str]) -> None:
    """Remember which configuration this process works on."""
    _call["options"] = ["--config", config, *(word for value in overrides for word in ("--set", value))]


def use(saved: Mapping[str, Any]) -> None:
    """Act for the command that made the sweep or pipeline with this sweep.yaml or chain.yaml from now on."""
    _call.update(_saved_call(saved))


def to_keep() -> dict[str, list[str]]:
    """The user's command, to be saved as `call` in sweep.yaml or chain.yaml; the profile is saved beside it."""
    words = _without_cluster(_call.get("words") or _words_of_this_process())
    return {
        "words": [word for word in words if word not in _FOR_ONE_CALL],
        "options": list(_call.get("options", [])),
    }


def _saved_call(saved: Mapping[str, Any]) -> dict[str, list[str]]:
    # This process's own options come first: the configuration file may have been renamed since.
    options = _call.get("options", [])
    call = saved.get("call")
    if not _is_ours(call):
        # Sweeps of earlier versions have none. Content of a run directory is not trusted, so an odd call is ignored
        # too.
        call = {"words": ["hpc.launch", str(saved.get("kind", "pipeline")).replace("_", "-"), *options]}
    words, profile = call["words"], str(saved.get("profile") or "")
    placed = [_CLUSTER, profile] if profile.isprintable() and profile and words[0] == "hpc.launch" else []
    return {"words": [*words, *placed], "options": options or call.get("options", [])}


def _is_ours(call: object) -> TypeGuard[dict[str, list[str]]]:
    if not isinstance(call, dict) or not call.get("words"):
        return False
    words = [call["words"], call.get("options", [])]
    plain = all(isinstance(part, list) and all(isinstance(w, str) and w.isprintable() for w in part) for part in words)
    return plain and call["words"][0].startswith(("hpc.", "src."))


def _words_of_this_process() -> list[str]:
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    module = spec.name.removesuffix(".__main__") if spec else Path(sys.argv[0]).stem
    return [module, *sys.argv[1:]]


def _cluster_of(words: Sequence[str]) -> list[str]:
    cluster: list[str] = []
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == _CLUSTER:
            cluster = [_CLUSTER, following]
        elif word.startswith(f"{_CLUSTER}="):
            cluster = [_CLUSTER, word.partition("=")[2]]
    return cluster


def _without_cluster(words: Sequence[str]) -> list[str]:
    before = ["", *words[:-1]]
    return [
        word
        for word, previous in zip(words, before, strict=True)
        if _CLUSTER not in (word, previous) and not word.startswith(f"{_CLUSTER}=")
    ]


def _interpreter() -> str:
    path = Path(sys.executable)
    if shutil.which("python") == str(path):
        return "python"
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


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
