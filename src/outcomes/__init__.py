"""What is said of finished trainings and LR sweeps besides their table: curves, comparisons, suggested rates."""
