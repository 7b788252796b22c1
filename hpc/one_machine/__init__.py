"""A real SLURM on one machine, to try Relay before going to a cluster: `python -m hpc.one_machine install|up|down|status`."""
