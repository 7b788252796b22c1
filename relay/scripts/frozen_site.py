"""The `sitecustomize` of a command's Python: imports from the project find its frozen files, not those that are edited.

An editable installation of the project leads into the folder of the user. Any Python from 3.6 on executes this when it
starts, before the script. Then it executes the `sitecustomize` that it would have found without this one.
"""

import importlib.machinery
import importlib.util
import json
import os
import sys


def lead_into_frozen(root: str, folder: str) -> None:
    """Let what leads into the project `root` lead into its frozen files in `folder`."""

    def frozen(entry: str) -> str:
        path = os.path.abspath(entry)  # noqa: PTH100
        is_live = (path + os.sep).startswith(root + os.sep) and not (path + os.sep).startswith(folder + os.sep)
        inside = os.path.join(folder, os.path.relpath(path, root))  # noqa: PTH118
        return inside if is_live and "site-packages" not in path and os.path.exists(inside) else entry  # noqa: PTH110

    sys.path[:] = [frozen(entry) if entry else entry for entry in sys.path]
    for finder in sys.meta_path:
        # That of setuptools: https://setuptools.pypa.io/en/latest/userguide/development_mode.html
        mapping = getattr(sys.modules.get(getattr(finder, "__module__", "")), "MAPPING", None)
        if isinstance(mapping, dict):
            mapping.update({name: frozen(path) for name, path in mapping.items() if isinstance(path, str)})


def execute_next() -> None:
    """Execute the next `sitecustomize` on the path, if there is one."""
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    others = [entry for entry in sys.path if os.path.abspath(entry) != here]  # noqa: PTH100
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", others)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


if __name__ == "sitecustomize":
    try:
        with open(os.environ["RELAY_ORDER"]) as order_file:  # noqa: PTH123
            order = json.load(order_file)
        lead_into_frozen(order["root"], order["folder"])
    except (KeyError, OSError, ValueError):
        pass
    execute_next()
