"""The environment of a run: what decides how its sums are rounded.

Equal code gives equal results, bit for bit, only in equal environments. A run that was resumed in another one has
several. Its checkpoints record them, and so does its result.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from relay.runs.attempt import Attempts

# By name: the packages that compute, the facts of the device (src/training/device.py), and the variables below that are
# set. Flat, so that two environments can be compared and shown name by name.
Environment = dict[str, str]

_COMPUTING = ("python", "torch", "numpy")
_OTHERS = ("torchvision", "datasets")
# The variables that change which instructions or kernels compute, and so the last digits. Not those that set the number
# of threads: checkpoints hold it.
_VARIABLES = (
    *("ATEN_CPU_CAPABILITY", "NPY_DISABLE_CPU_FEATURES", "NPY_ENABLE_CPU_FEATURES", "GLIBC_TUNABLES"),
    *("MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "MKL_DEBUG_CPU_TYPE", "OPENBLAS_CORETYPE", "BLIS_ARCH_TYPE"),
    *("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"),
    *("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "CUBLAS_WORKSPACE_CONFIG", "CUBLASLT_WORKSPACE_SIZE"),
    *("TORCH_BLAS_PREFER_CUBLASLT", "TORCH_CUDNN_V8_API_DISABLED", "PYTORCH_TUNABLEOP_ENABLED"),
    *("TORCHINDUCTOR_MAX_AUTOTUNE", "TORCHINDUCTOR_FREEZING"),
)
# A network on a GPU does not compute on the CPU: other nodes with the same GPU give the same result.
_ONLY_ON_CPU = frozenset({"cpu", "cpu_capability"})


def environment_of(facts: Mapping[str, str]) -> Environment:
    """The environment of this process, with the `facts` of its device."""
    variables = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    return {**computing_versions(), **facts, **variables}


def computing_versions() -> Environment:
    """The versions of Python and of the packages whose version can change a result."""
    return {name: str(version) for name, version in package_versions().items() if name in _COMPUTING}


@functools.cache
def package_versions() -> dict[str, str | None]:
    """The version of each package that is, or would be, imported; None if there is none."""
    return {"python": platform.python_version(), **{name: version_of(name) for name in (*_COMPUTING[1:], *_OTHERS)}}


def version_of(name: str) -> str | None:
    """The version of the package that `import name` finds, without importing it: the login node needs no torch.

    An entry of PYTHONPATH comes before the virtual environment, whose metadata metadata.version() may return.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        return None
    folder = str(Path(spec.origin).parent.parent)
    beside = next(iter(metadata.distributions(name=name, path=[folder])), None)
    if beside:
        return beside.version
    # A copy without metadata, or an editable installation. Its own word, if it is imported.
    return str(getattr(sys.modules.get(name), "__version__", f"unknown, in {folder}"))


@functools.cache
def cpu_model() -> str:
    """The name of this machine's CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}
    # ARM has numbers of the maker and the part, and no name.
    arm = " ".join(facts[key] for key in ("CPU implementer", "CPU part") if key in facts)
    return facts.get("model name") or f"{platform.machine()} {arm}".strip()


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What differs between two environments: `cpu_capability AVX2 -> DEFAULT; MKL_CBWR none -> AVX`. "" if nothing that
    can change a result does.
    """
    both_on_gpu = before.get("device") == now.get("device") == "cuda"
    names = [name for name in {**before, **now} if not (both_on_gpu and name in _ONLY_ON_CPU)]
    changed = [name for name in names if before.get(name) != now.get(name)]
    return "; ".join(f"{name} {before.get(name, 'none')} -> {now.get(name, 'none')}" for name in changed)


def resumed_under(environments: Sequence[Environment]) -> str:
    """How the environments in which a run was resumed differ from that of its start; "" for one environment."""
    return ", then ".join(differences(environments[0], later) for later in environments[1:])


@dataclass(frozen=True)
class EnvironmentMark:
    """What a reader must know of the environments of a run among others: how the one of its start differs from that of
    the run `usual`, and how it was resumed in another one. Each is "" if there is nothing to know.
    """

    usual: str
    difference: str
    resumed: str

    def __str__(self) -> str:
        difference = f"differs from {self.usual}: {self.difference}" if self.difference else ""
        resumed = f"resumed under {self.resumed}" if self.resumed else ""
        return "; ".join(part for part in (difference, resumed) if part)


def environment_marks(of_runs: Mapping[str, Sequence[Environment]]) -> dict[str, EnvironmentMark]:
    """The mark of each run that needs one, by name, from the environments of all. `usual` is the first run with the
    most frequent environment.
    """
    begun = {name: environments[0] for name, environments in of_runs.items() if environments}
    counts = Counter(tuple(sorted(environment.items())) for environment in begun.values())
    usual = max(begun, key=lambda name: counts[tuple(sorted(begun[name].items()))], default="")
    marks = {
        name: EnvironmentMark(usual, differences(begun[usual], environment), resumed_under(of_runs[name]))
        for name, environment in begun.items()
    }
    return {name: mark for name, mark in marks.items() if mark.difference or mark.resumed}


def environments_of(result: Mapping[str, Any] | None, attempts: Attempts) -> Sequence[Environment]:
    """The environments in which a run computed what it has, in order: from its result, or from the newest attempt that
    began to compute. Empty if none has.
    """
    if result:
        return result.get("environments") or []
    return next((attempt.environments for attempt in reversed(attempts) if attempt.environments), [])
