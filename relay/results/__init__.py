"""From run directories, and the logs of other programs, to tables, statistics and figures, of any metrics."""
