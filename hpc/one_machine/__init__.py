"""A real SLURM on one machine, to try Relay without a cluster.

`python -m hpc.one_machine install`, then `eval "$(python -m hpc.one_machine up)"`, and `down` at the end.
"""
