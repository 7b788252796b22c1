"""Imported first by every command: what to do where this Python lacks the packages of this project."""

import importlib.util
import os
import sys

# OpenMP threads sleep while they wait: on shared cores, spinning costs other processes far more than it saves here. The
# runtime reads this once, when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# The system's Python, or a checkout before `make setup`: every command would end in a ModuleNotFoundError.
if importlib.util.find_spec("pydantic") is None:
    from relay.hints import without_packages

    print(without_packages(), file=sys.stderr)
    sys.exit(2)
