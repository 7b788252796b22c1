"""What the tests of the frameworks need: their environment, and a SLURM of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc.one_machine.packages import check_installed
from relay.errors import ClusterError
from tests.conftest import ROOT
from tests.slurm.conftest import Cluster, cluster_of_its_own

FRAMEWORKS = ROOT / ".venv-frameworks" / "bin" / "python"


def _missing(what: str) -> None:
    """Skip, unless `make test-frameworks` calls: it has to run all."""
    if os.environ.get("TEST_FRAMEWORKS"):
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="session")
def frameworks() -> Path:
    """The Python that has the frameworks."""
    if not FRAMEWORKS.exists():
        _missing("the frameworks are not installed; `make test-frameworks` installs them")
    return FRAMEWORKS


@pytest.fixture(scope="session")
def slurm() -> Iterator[Cluster]:
    """A cluster for all tests of a session, one after the other."""
    try:
        check_installed()
    except ClusterError as error:
        _missing(str(error))
    with cluster_of_its_own(f"frameworks_{os.getpid()}") as cluster:
        yield cluster
