"""What decides how this process rounds: the versions of what computes, the device, and the chosen kernels."""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
from pathlib import Path


def environment() -> dict[str, str]:
    """By name, of what this process has imported: `python`, `numpy`, `torch`, and of torch `device` (cpu or cuda),
    `cpu_capability` (the widest instructions that it uses), on a GPU `gpu`, `cuda` and `cudnn`.
    """
    found = {"python": platform.python_version(), "device": "cpu"}
    found |= {name: str(sys.modules[name].__version__) for name in ("numpy", "torch") if name in sys.modules}
    if "torch" in sys.modules:
        import torch

        found["cpu_capability"] = torch.backends.cpu.get_cpu_capability()
        if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            # The name has the profile of a MIG slice: one with fewer multiprocessors is given other kernels.
            found |= {"device": "cuda", "gpu": torch.cuda.get_device_name(), "cuda": str(torch.version.cuda)}
            found["cudnn"] = str(torch.backends.cudnn.version())  # type: ignore[no-untyped-call]
    variables = ("CUBLAS_WORKSPACE_CONFIG", "OMP_NUM_THREADS", "MKL_CBWR", "NVIDIA_TF32_OVERRIDE")
    return {**found, **{name: os.environ[name] for name in variables if name in os.environ}}


def installed_versions() -> dict[str, str]:
    """The version of Python and of each package that is installed where this process looks for modules, by name.

    From the names of the packages' folders: nothing is imported or opened. The current folder is left out.
    """
    found: dict[str, str] = {}
    for folder in map(Path, sys.path):
        if folder.absolute() != Path.cwd():
            for package in sorted(folder.glob("*-*.*-info")):
                name, _, version = package.stem.partition("-")
                found.setdefault(name, version)
    return {"python": platform.python_version(), **found}


def is_installed(path: Path) -> bool:
    """Whether a file or folder belongs to an installed package."""
    return "site-packages" in path.parts or "dist-packages" in path.parts


def missing_package(name: str) -> str:
    """The end of a message about a package that is not installed: its name, where it is missing, and what to do."""
    return (
        f"{name}, which the Python that executes it does not have; to install it: "
        f"uv pip install --python {sys.executable} {name}"
    )


def imported_from_elsewhere(folder: str) -> list[str]:
    """The names of modules of this process whose code no version tells: neither Python's own, nor installed, nor
    Relay's, nor of the project in `folder`.
    """
    own = [folder, str(Path(__file__).parent.parent)]
    pythons = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib")]
    resolved = tuple(os.path.realpath(each) + os.sep for each in (*own, *pythons))
    # Of Python's own, a module may be a link: Debian's sitecustomize leads into /etc.
    as_found = tuple(each + os.sep for each in pythons)
    names = {
        name.partition(".")[0]
        for name, module in list(sys.modules.items())
        if (file := getattr(module, "__file__", None))
        and not os.path.realpath(file).startswith(resolved)
        and not file.startswith(as_found)
        and not is_installed(Path(file))
    }
    return sorted(names)


def compute_deterministically() -> None:
    """Select kernels that give equal results for equal input, if the program uses torch."""
    if "torch" not in sys.modules:
        return
    import torch

    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    # Only warn: an operation without such a kernel is no reason to end a run; `relay verify` says what it costs.
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Set for this process alone by the supervisor: the CPUs of the task.
    given = int(os.environ.get("RELAY_CPUS") or os.environ.get("SLURM_CPUS_PER_TASK") or 0)
    if given:
        torch.set_num_threads(given)
