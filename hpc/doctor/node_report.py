"""`python -m hpc.doctor.node_report FOLDER`: describe the node, as one JSON line and in FOLDER/report.json.

`probe.py` starts this module as a task and waits for it. Together they test whether locks and files work across the two
machines.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from hpc.doctor.handshake import POLL_S, Handshake, try_lock
from relay.errors import ClusterError
from relay.files import read_json, replace_file
from relay.user import home_folder

_ACK_TIMEOUT_S = 60.0
_NETWORK_TIMEOUT_S = 5.0


def node_name() -> str:
    """The name of this node in SLURM, or of this machine."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def check_shared_files(handshake: Handshake) -> dict[str, Any]:
    """Test locks and files from the node. `round_trip_s` is None if `ack` was not seen in time."""
    with handshake.asker_lock.open("r+") as file:
        seen = try_lock(file)  # opened for writing: flock on NFS needs that (flock(2))
    with handshake.node_lock.open("w") as file:
        own = try_lock(file)
        start = time.monotonic()
        replace_file(handshake.ready, json.dumps({"host": node_name(), "time": time.time()}))
        while not (ack := read_json(handshake.ack) or {}).get("seen"):
            if time.monotonic() - start > _ACK_TIMEOUT_S:
                return {"asker_lock": seen, "own_lock": own, "round_trip_s": None}
            time.sleep(POLL_S)
        return {"asker_lock": seen, "own_lock": own, "round_trip_s": time.monotonic() - start, **ack}


def describe_torch() -> dict[str, Any]:
    """Versions, the visible devices, and the seconds that the import took; `error` if the import fails."""
    start = time.monotonic()
    try:
        import torch
        import torchvision
    except Exception as error:  # a missing library raises OSError, a mismatched build RuntimeError or ImportError
        return {"error": f"{type(error).__name__}: {error}"}
    seconds = time.monotonic() - start
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    devices = [torch.cuda.get_device_properties(number) for number in range(count)]
    return {
        "version": torch.__version__,
        "torchvision": torchvision.__version__,
        "cuda": torch.version.cuda,
        "import_s": seconds,
        "devices": [{"name": device.name, "memory_gib": device.total_memory / 2**30} for device in devices],
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }


def describe_slice() -> dict[str, str]:
    """The slice that a run would get, by the check that every run does, and whether a kernel runs on it."""
    from hpc.node.gpu_check import check_slice

    try:
        found = check_slice()
    except ClusterError as error:
        return {"error": str(error)}
    if os.environ.get("RELAY_NEEDS_GPU") != "1":
        return {"found": found}
    import torch

    try:
        ones = torch.ones(256, 256, device="cuda")
        total = float((ones @ ones).sum())
    except RuntimeError as error:
        return {"error": f"{found}: a CUDA kernel fails: {str(error).splitlines()[0]}"}
    # Sums of ones are exact in float32 up to 2**24, and TF32 does not change them: the result must be 256**3.
    return {"found": found} if total == 256.0**3 else {"error": f"{found}: a matrix product gives {total}"}


def describe_network() -> dict[str, str]:
    """Whether the host of the Hugging Face Hub, or the proxy in front of it, accepts a connection."""
    from huggingface_hub import constants

    endpoint = urllib.parse.urlsplit(constants.ENDPOINT)
    proxy = urllib.request.getproxies().get(endpoint.scheme)
    if proxy and not urllib.request.proxy_bypass(endpoint.netloc):
        # Without the part before the @, which may be a user name and a password.
        target = urllib.parse.urlsplit(proxy)
        what = f"{constants.ENDPOINT} through the proxy {proxy.rpartition('@')[2]}"
    else:
        target, what = endpoint, constants.ENDPOINT
    port = target.port or (443 if target.scheme == "https" else 80)
    try:
        socket.create_connection((target.hostname or "", port), _NETWORK_TIMEOUT_S).close()
    except OSError as error:
        return {"host": what, "error": error.strerror or str(error)}
    return {"host": what}


def describe_space() -> dict[str, Any]:
    """Free space for temporary files and in the home folder, in GiB; `error` if temporary files cannot be written."""
    facts: dict[str, Any] = {"tmp": os.environ.get("TMPDIR") or "/tmp"}
    try:
        facts["tmp"] = tempfile.gettempdir()
        with tempfile.TemporaryFile() as file:
            file.write(b"x")
        facts["tmp_gib"] = shutil.disk_usage(facts["tmp"]).free / 2**30
    except OSError as error:
        facts["error"] = error.strerror or str(error)
    home = home_folder()
    facts["home_gib"] = shutil.disk_usage(home).free / 2**30 if home and home.is_dir() else None
    return facts


def main() -> None:
    """Run all checks, write report.json and print it."""
    handshake = Handshake(Path(sys.argv[1]))
    report = {
        "host": node_name(),
        "python": platform.python_version(),
        "files": check_shared_files(handshake),
        "torch": describe_torch(),
        "slice": {},
        "network": describe_network(),
        "space": describe_space(),
    }
    if "error" not in report["torch"]:
        report["slice"] = describe_slice()
    replace_file(handshake.report, json.dumps(report))
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
