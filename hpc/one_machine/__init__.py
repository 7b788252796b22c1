"""A real SLURM on one machine, to try Relay before going to a cluster.

`python -m hpc.one_machine install`, then `eval "$(python -m hpc.one_machine up)"`, and `down` in the end.
"""
