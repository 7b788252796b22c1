"""What a task does on its node: check the GPU, take the run lock, execute runs, and requeue itself after a signal."""
