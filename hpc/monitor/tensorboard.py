"""The tensorboard command: TensorBoard on all runs, one sweep or one run, and how to reach it from another computer."""

from __future__ import annotations

import contextlib
import io
import signal
import socket
from pathlib import Path
from urllib.parse import urlparse

from hpc.pipeline.names import resolve_stage_name
from relay.config.sections import Paths
from relay.errors import RunError
from relay.runs.names import find_named
from relay.user import user_name


def show_tensorboard(paths: Paths, name: str | None, port: int | None) -> None:
    """Serve the sweep, run or stage `name`, or all runs, on localhost until Ctrl-C or SIGTERM.

    Without `port`, TensorBoard takes 6006, or a free one where that is taken. Raises RunError if `port` is taken, or if
    no or several sweeps have `name` in their name.
    """
    logdir = logdir_of(paths.runs, name)
    url = start(logdir, port)
    print(access_lines(url, logdir), flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        # The server is a daemon thread of this process.
        signal.pause()


def logdir_of(runs_dir: Path, name: str | None) -> Path:
    """The folder that TensorBoard reads: that of the sweep or run `name`, as status finds it; of all runs without."""
    if not name:
        return runs_dir
    sweep, run = find_named(runs_dir, resolve_stage_name(runs_dir, name), newest=True)
    return run.path if run else sweep.path


def start(logdir: Path, port: int | None) -> str:
    """Start TensorBoard on localhost in a thread of this process. Returns its URL.

    Raises RunError if `port` is taken.
    """
    from tensorboard.program import TensorBoardServerException

    try:
        # TensorBoard binds before it returns, so no other process can take the port in between. Without a port, it
        # tries ten from 6006 on.
        return _launch(logdir, port)
    except TensorBoardServerException as error:
        if port is not None:
            reason = str(error.msg).splitlines()[0]
            raise RunError(f"--port {port}: {reason}; give another port, or leave --port out for a free one") from None
        # Port 0: the operating system chooses.
        return _launch(logdir, 0)


def _launch(logdir: Path, port: int | None) -> str:
    from tensorboard import default
    from tensorboard.program import TensorBoard

    board = TensorBoard(default.get_plugins())
    board.configure(logdir=str(logdir), host="localhost", port=port)
    # It tells everybody to report issues with its fast loader.
    with contextlib.redirect_stderr(io.StringIO()):
        return str(board.launch())


def access_lines(url: str, logdir: Path) -> str:
    """What the user needs to open the page, here or from another computer."""
    port = urlparse(url).port
    return (
        f"TensorBoard of {logdir} at {url} (Ctrl-C ends it)\n"
        "from another computer, run this there first, then open the same address:\n"
        f"  ssh -N -L {port}:localhost:{port} {user_name()}@{_host()}"
    )


def _host() -> str:
    full = socket.getfqdn()
    # What a machine without a domain calls itself is of no use elsewhere.
    return socket.gethostname() if full.startswith("localhost") else full
