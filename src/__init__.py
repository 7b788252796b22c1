"""What one run is: configuration, data, model, training, its directory and its results. Knows nothing of SLURM."""

import os

# Threads that wait for others sleep: on cores that are shared, spinning ones cost far more than they save. Read when
# torch is loaded, so it must be said before.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
