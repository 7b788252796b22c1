"""What one task does: jobs/kinds.py is the table of how each kind of run is planned, checked and executed."""

from jobs.kinds import check, executor_of, request_of

__all__ = ["check", "executor_of", "request_of"]
