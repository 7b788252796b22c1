"""Scripts and frameworks of the examples on a real SLURM that interrupts them: `make test-frameworks`."""
