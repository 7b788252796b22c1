"""What one run is: configuration, data, model, training, its directory and its results. Knows nothing of SLURM."""
