"""`python -m relay.program.describe FOLDER FUNCTION ANSWER`: checks the parameters of cells, given as JSON on stdin.

Executed by the project's own Python where runs are planned. Stdin holds a list of mappings, name -> value. The answer,
a JSON file, has `fields`, what the function declares; `cells`, for each mapping its `values` with defaults and its
`problems`; and `versions`, of all that is installed. Or it has `problem`, why there are no parameters.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from relay.errors import ConfigError
from relay.program.current import plan_only
from relay.program.environment import installed_versions
from relay.program.parameters import Parameters, load_function, project_first


def describe(function: str, cells: list[dict[str, Any]]) -> dict[str, Any]:
    """The answer. Without a function, none of the parameters is checked."""
    if not function:
        return {"cells": [{"values": given, "problems": []} for given in cells]}
    try:
        parameters = Parameters(load_function(function))
    except ConfigError as error:
        return {"problem": str(error)}
    except BaseException as error:
        module = function.partition(":")[0]
        lines = traceback.extract_tb(error.__traceback__)
        where = f" ({Path(lines[-1].filename).name}, line {lines[-1].lineno})" if lines else ""
        return {"problem": f"program.function: {module} cannot be imported: {type(error).__name__}: {error}{where}"}
    checked = [parameters.resolve(given) for given in cells]
    return {
        "fields": [str(field) for field in parameters.fields.values()],
        "names": list(parameters.fields),
        "cells": [{"values": values, "problems": problems} for values, problems in checked],
    }


def main() -> None:
    """Read the cells, write the answer. What the project prints does not disturb it."""
    folder, function, answer = sys.argv[1:]
    cells = json.load(sys.stdin)
    versions = installed_versions()
    project_first(folder)
    plan_only()
    text = json.dumps({**describe(function, cells), "versions": versions})
    Path(answer).write_text(text)
    # A thread of the project's must not keep this process.
    os._exit(0)


if __name__ == "__main__":
    main()
