"""Around a task on its node: signals, the run lock, the GPU check, and the requeue."""
