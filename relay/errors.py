"""Every mistake that a user can fix is a `RelayError`: one message, exit code 2, no traceback.

RelayError
├── ConfigError        a YAML file, an override or a combination of values that is not valid
├── DataError          data that is missing, unreachable or not as the configuration says
├── CheckpointError    a checkpoint that is missing, damaged, or of another model
├── RunError           a run or sweep directory that is missing, in use or not as expected
│   ├── DiskError      a file that cannot be written (relay/files.py; an OSError, too)
│   └── TakenOverError a run that another process has taken over from this one
└── ClusterError       a scheduler that is missing, refuses, or does not answer
    └── BusyError      a controller that is busy or unreachable now (hpc/slurm_command.py)
"""

from __future__ import annotations


class RelayError(Exception):
    """Its message says what is wrong, what is allowed and what to try. It is printed as it is, with exit code 2."""


class ConfigError(RelayError):
    """A YAML file, an override or a combination of values that is not valid."""


class DataError(RelayError):
    """Data that is missing, unreachable or not as the configuration says."""


class CheckpointError(RelayError):
    """A checkpoint that is missing, damaged, or of another model."""


class RunError(RelayError):
    """A run or sweep directory that is missing, in use or not as expected."""


class TakenOverError(RunError):
    """A run that another process has taken over from this one."""


class ClusterError(RelayError):
    """A scheduler that is missing, refuses, or does not answer."""
