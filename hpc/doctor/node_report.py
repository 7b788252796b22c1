"""`python -m hpc.doctor.node_report FOLDER`: what a task finds on its node, as one JSON line and in FOLDER/report.json.

`probe.py` starts it and waits; between them they see whether files and locks hold across the two machines.
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
from src.errors import ClusterError
from src.files import read_json, replace_file

_ACK_TIMEOUT_S = 60.0
_NETWORK_TIMEOUT_S = 5.0


def node_name() -> str:
    """SLURM's name of this node, or the machine's."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def check_shared_files(handshake: Handshake) -> dict[str, Any]:
    """Locks and files as seen from here. `round_trip_s` is None if the answer to `ready` was not seen in time."""
    with handshake.asker_lock.open("r+") as file:
        seen = try_lock(file)
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
    """Version, CUDA, what is visible, and how long the import took; `error` where it fails."""
    start = time.monotonic()
    try:
        import torch
        import torchvision
    except Exception as error:
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
    """What a run would be given, by the check that every run makes, and whether a kernel runs on it."""
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
        return {"error": f"{found}: a kernel fails: {str(error).splitlines()[0]}"}
    return {"found": found} if total == 256.0**3 else {"error": f"{found}: a product comes out as {total}"}


def describe_network() -> dict[str, str]:
    """Whether the Hub's host (or the proxy on the way to it) takes a connection."""
    from huggingface_hub import constants

    endpoint = urllib.parse.urlsplit(constants.ENDPOINT)
    proxy = urllib.request.getproxies().get(endpoint.scheme)
    if proxy and not urllib.request.proxy_bypass(endpoint.netloc):
        target, what = urllib.parse.urlsplit(proxy), f"{constants.ENDPOINT} by the proxy {proxy.rpartition('@')[2]}"
    else:
        target, what = endpoint, constants.ENDPOINT
    port = target.port or (443 if target.scheme == "https" else 80)
    try:
        socket.create_connection((target.hostname or "", port), _NETWORK_TIMEOUT_S).close()
    except OSError as error:
        return {"host": what, "error": error.strerror or str(error)}
    return {"host": what}


def describe_space() -> dict[str, Any]:
    """GiB free for temporary files and in the home folder; `error` where temporary files cannot be written."""
    facts: dict[str, Any] = {"tmp": os.environ.get("TMPDIR") or "/tmp"}
    try:
        facts["tmp"] = tempfile.gettempdir()
        with tempfile.TemporaryFile() as file:
            file.write(b"x")
        facts["tmp_gib"] = shutil.disk_usage(facts["tmp"]).free / 2**30
    except OSError as error:
        facts["error"] = error.strerror or str(error)
    home = Path.home()
    facts["home_gib"] = shutil.disk_usage(home).free / 2**30 if home.is_dir() else None
    return facts


def main() -> None:
    """Look around, write report.json, print it."""
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
