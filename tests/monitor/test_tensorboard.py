"""What TensorBoard shows of a small experiment, asked through its HTTP API; no server and no browser is needed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpc.monitor import tensorboard
from relay.errors import RunError
from relay.progress import PlainReporter
from relay.results.tables.table import read_table
from relay.runs.sweeps import open_sweep
from src.config.schema import Config
from src.requests import grid_request, lr_sweep_request
from src.training.lr_range import sweep_rates
from src.training.trainer import train

Ask = Callable[..., Any]


def api_of(logdir: Path) -> Ask:
    """A function that asks TensorBoard, in this process, for a path of its API, and returns the JSON answer."""
    from tensorboard import default
    from tensorboard.backend.application import TensorBoardWSGIApp
    from tensorboard.backend.event_processing.data_ingester import LocalDataIngester
    from tensorboard.program import TensorBoard
    from werkzeug.test import Client

    board = TensorBoard(default.get_plugins())
    # Reads the files once, before the first answer.
    board.configure(logdir=str(logdir), reload_interval=0)
    ingester = LocalDataIngester(board.flags)
    ingester.start()
    app = TensorBoardWSGIApp(board.flags, board.plugin_loaders, ingester.data_provider, board.assets_zip_provider)
    client = Client(app)

    def ask(path: str, body: dict[str, Any] | None = None, **query: Any) -> Any:
        url = f"/data/plugin/{path}"
        answer = client.get(url, query_string=query) if body is None else client.post(url, json=body)
        assert answer.status_code == 200, answer.data
        return json.loads(answer.data)

    return ask


def sessions(ask: Ask) -> dict[str, dict[str, Any]]:
    """The rows of the HParams table, by the name of their run."""
    states = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]
    answer = ask("hparams/session_groups", {"startIndex": 0, "sliceSize": 100, "allowedStatuses": states})
    return {Path(group["sessions"][0]["name"]).name: group for group in answer["sessionGroups"]}


def metrics_of(group: dict[str, Any]) -> dict[str, float]:
    return {value["name"]["tag"]: value["value"] for value in group["metricValues"]}


@pytest.mark.filterwarnings("ignore")  # werkzeug and tensorboard warn of each other.
def test_a_grid_beside_an_lr_sweep(small: Callable[..., Config]) -> None:
    config = small(metrics__classification=["macro_f1"])
    lr_sweep, _ = open_sweep(lr_sweep_request(config))
    sweep_rates(lr_sweep.runs()[0], lambda: False, PlainReporter())
    sweep, _ = open_sweep(grid_request(config))
    for number, run in enumerate(sweep.runs()):
        stops = iter([False] * 3 + [True])
        # The first cell takes three attempts.
        for _ in range(2 if number == 0 else 0):
            train(run, lambda stops=stops: next(stops, False), PlainReporter())
            stops = iter([False] * 3 + [True])
        train(run, lambda: False, PlainReporter())
    ask = api_of(Path(config.paths.runs_dir))
    first, second = (f"{sweep.name}/{run.name}" for run in sweep.runs()[:2])

    scalars = ask("scalars/tags")
    assert {"train/loss", "train/loss_epoch", "val/loss", "val/accuracy"} <= scalars[first].keys() & scalars[
        second
    ].keys()
    curves = [ask("scalars/scalars", run=run, tag="train/loss") for run in (first, second)]
    # A run of three attempts is one curve without a doubled step.
    assert [step for _, step, _ in curves[0]] == [step for _, step, _ in curves[1]] == [4, 6, 8, 12]

    experiment = ask("hparams/experiment", {"experimentName": "any"})
    assert {info["name"] for info in experiment["hparamInfos"]} == {"lr", "num_modules", "seed"}
    columns = [f"val/{name}" for name in config.metrics.columns]
    assert columns == ["val/accuracy", "val/loss", "val/macro_f1"]
    assert [info["name"]["tag"] for info in experiment["metricInfos"]] == [
        f"val_best/{name}" for name in config.metrics.columns
    ]
    shown = sessions(ask)
    table = read_table(sweep)
    assert shown.keys() == {row["run"] for row in table.rows}
    for row in table.rows:
        group = shown[row["run"]]
        assert (group["hparams"]["lr"], group["hparams"]["num_modules"]) == (row["lr"], row["num_modules"])
        assert metrics_of(group) == pytest.approx(
            {column.replace("/", "_best/"): row[column] for column in columns}, rel=1e-6
        )
        assert group["sessions"][0]["status"] == "STATUS_SUCCESS"

    images = ask("images/tags")
    assert images[f"{lr_sweep.name}/{lr_sweep.runs()[0].name}"].keys() == {"visuals/loss_over_lr"}
    assert images[first].keys() == {"visuals/before_and_after_augmentation"}
    assert len(list(sweep.runs()[0].path.glob("events.out.tfevents.*"))) == 1
    # TensorBoard sorts groups by name: the page opens on the curves, and single points and figures come last.
    groups = sorted({tag.split("/")[0] for tags in (*scalars.values(), *images.values()) for tag in tags})
    assert groups == ["train", "val", "val_best", "visuals"]
    assert {tag.split("/")[0] for tag in scalars[f"{lr_sweep.name}/{lr_sweep.runs()[0].name}"]} == {"train"}


def test_a_name_means_what_it_means_for_status(small: Callable[..., Config]) -> None:
    config = small()
    sweep, _ = open_sweep(grid_request(config))
    runs_dir = Path(config.paths.runs_dir)
    assert tensorboard.logdir_of(runs_dir, None) == runs_dir
    assert tensorboard.logdir_of(runs_dir, "grid") == sweep.path
    assert tensorboard.logdir_of(runs_dir, "k=001") == sweep.runs()[1].path
    with pytest.raises(RunError, match="no sweep and no run has that in its name"):
        tensorboard.logdir_of(runs_dir, "other")


def test_the_address_is_printed_with_the_tunnel_to_it() -> None:
    lines = tensorboard.access_lines("http://localhost:6010/", Path("runs"))
    assert "http://localhost:6010/" in lines
    assert re.search(r"^  ssh -N -L 6010:localhost:6010 \S+@\S+$", lines, re.MULTILINE)


def test_a_port_that_is_taken_is_refused_or_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.program import TensorBoardPortInUseError

    tried: list[int | None] = []

    def launch(logdir: Path, port: int | None) -> str:
        tried.append(port)
        if port != 0:
            raise TensorBoardPortInUseError("could not bind to the port, it was already in use")
        return "http://localhost:1/"

    monkeypatch.setattr(tensorboard, "_launch", launch)
    with pytest.raises(RunError, match=r"--port 6006: could not bind .* already in use; .* leave --port out"):
        tensorboard.start(tmp_path, 6006)
    assert tensorboard.start(tmp_path, None) == "http://localhost:1/"
    assert tried == [6006, None, 0]
