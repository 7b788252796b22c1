"""An existing script or any command: its words, its own checkpoints, and the metrics that it writes."""
