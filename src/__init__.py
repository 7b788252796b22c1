"""What one run is: configuration, data, model, training, its directory and its results. Knows nothing of SLURM."""

import importlib.util
import os
import sys

# Threads that wait for others sleep: on cores that are shared, spinning ones cost far more than they save. Read when
# torch is loaded, so it must be said before.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# A Python of the system, or a checkout before its set-up: all commands would end in a ModuleNotFoundError.
if importlib.util.find_spec("pydantic") is None:
    from src.hints import without_packages

    print(without_packages(), file=sys.stderr)
    sys.exit(2)
