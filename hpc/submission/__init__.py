"""Turn runs and a profile into SLURM jobs, or into worker processes on this machine."""
