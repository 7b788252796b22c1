from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import ListValue, Value
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.plugins.hparams import summary_v2 as hparams_summary
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util.tensor_util import make_tensor_proto

from hpc import aggregate
from relay.config.yaml_file import dump_yaml
from relay.errors import RunError
from relay.results.foreign.event_files import read_events
from relay.results.foreign.logs import read_foreign
from src.config.schema import Config
from tests.conftest import ROOT

REFERENCE = ROOT.parent / "shared" / "reference" / "grid_search_runs"
# Section 5 of the report: the number of the cell, its val accuracy and loss.
SECTION_5 = {
    34: (0.2973, 3.0466),
    18: (0.2944, 3.0387),
    43: (0.2888, 3.0626),
    35: (0.2886, 3.0828),
    33: (0.2799, 3.1604),
    42: (0.2800, 3.1008),
    7: (0.2169, 3.5453),
    8: (0.1540, 4.0102),
}


def write(folder: Path, *events: Event, name: str = "events.out.tfevents.1.host") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    writer = RecordWriter((folder / name).open("wb"))
    for event in events:
        writer.write(event.SerializeToString())
    writer.close()
    return folder / name


def scalar(tag: str, step: int, value: float) -> Event:
    return Event(wall_time=1.5, step=step, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)]))


def tensor(tag: str, step: int, value: float) -> Event:
    made = make_tensor_proto(np.float32(value))
    return Event(wall_time=1.5, step=step, summary=Summary(value=[Summary.Value(tag=tag, tensor=made)]))


def hparams(**values: Any) -> Event:
    return Event(wall_time=1.5, summary=hparams_summary.hparams_pb(values))


def values_of(path: Path) -> dict[str, tuple[list[int], list[float]]]:
    found = read_events([path])
    assert not found.notes
    return {tag: (list(steps), [round(value, 5) for value in values]) for tag, (steps, values) in found.scalars.items()}


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="the logs of the report are not on this machine")
def test_the_reports_48_runs_have_the_numbers_of_its_section_5() -> None:
    logs = read_foreign(REFERENCE)
    table = logs.table
    assert (len(table.rows), len(logs.notes)) == (48, 1)
    assert logs.notes[0].startswith("Ranked by val/acc: higher is better; 48 of 48 runs logged it. ")
    assert sorted(table.axes) == ["batch_size", "branch_channels", "lr", "num_modules", "weight_decay"]
    for number, (accuracy, loss) in SECTION_5.items():
        (row,) = (row for row in table.rows if f"_k={number:03d}_" in row["run"])
        assert row["val/acc"] == pytest.approx(accuracy, abs=0.6e-4)
        assert row["val/loss"] == pytest.approx(loss, abs=1.1e-4)
    best = table.best()
    assert best is not None
    assert (best["lr"], best["num_modules"], best["branch_channels"], best["batch_size"]) == (0.002, 6, "64-64-64", 32)


@pytest.mark.parametrize("step", [0, 1, 127, 128, 300, 16384, 2**31])
def test_steps_of_any_size_are_read(tmp_path: Path, step: int) -> None:
    path = write(tmp_path, scalar("a", step, 0.5), scalar("a", step + 1, -2.5), scalar("b" * 200, step, 1))
    assert values_of(path) == {"a": ([step, step + 1], [0.5, -2.5]), "b" * 200: ([step], [1])}


def test_scalars_in_the_new_style_and_several_in_one_record_are_read(tmp_path: Path) -> None:
    both = Summary(value=[Summary.Value(tag="a", simple_value=1), Summary.Value(tag="b", simple_value=2)])
    path = write(tmp_path, tensor("c", 3, 0.25), Event(step=4, summary=both), Event(file_version="brain.Event:2"))
    assert values_of(path) == {"a": ([4], [1]), "b": ([4], [2]), "c": ([3], [0.25])}


def test_images_are_skipped(tmp_path: Path) -> None:
    image = Summary.Value(tag="i", image=Summary.Image(encoded_image_string=bytes(5000)))
    path = write(tmp_path, scalar("a", 1, 1), Event(summary=Summary(value=[image])), scalar("a", 2, 2))
    assert values_of(path) == {"a": ([1, 2], [1, 2])}


def test_a_step_that_was_logged_again_has_its_later_value(tmp_path: Path) -> None:
    first = write(tmp_path, scalar("a", 1, 1), scalar("a", 2, 2), scalar("a", 2, 3), name="events.tfevents.1")
    second = write(tmp_path, scalar("a", 2, 4), scalar("a", 3, 5), name="events.tfevents.2")
    assert values_of(first)["a"] == ([1, 2], [1, 3])
    assert read_events([second, first]).scalars["a"] == ([1, 2, 3], [1, 4, 5])


@pytest.mark.parametrize("cut", [1, 4, 10, 20, 33, 40])
def test_a_torn_file_is_read_as_far_as_it_goes(tmp_path: Path, cut: int) -> None:
    path = write(tmp_path, *(scalar("val/acc", step, step / 10) for step in range(5)))
    content = path.read_bytes()
    path.write_bytes(content[:-cut])
    found = read_events([path])
    assert found.scalars["val/acc"][0] == [0, 1, 2, 3] if cut < 43 else [0, 1, 2]
    (note,) = found.notes
    assert f"{path}: damaged at byte " in note
    assert "the 4 records before that were read" in note


@pytest.mark.parametrize("place", ["length", "checksum of the length", "data", "checksum of the data"])
def test_a_damaged_record_ends_the_reading(tmp_path: Path, place: str) -> None:
    path = write(tmp_path, *(scalar("a", step, 1.0) for step in (1, 2, 3)))
    content = bytearray(path.read_bytes())
    size = len(content) // 3
    offset = {"length": 7, "checksum of the length": 9, "data": 20, "checksum of the data": size - 1}[place]
    content[size + offset] ^= 1
    path.write_bytes(content)
    found = read_events([path])
    assert found.scalars["a"][0] == [1]
    assert found.notes[0].endswith(f"damaged at byte {size} of {3 * size}; the 1 records before that were read")


def test_whatever_the_bytes_are_there_is_no_traceback(tmp_path: Path) -> None:
    random, path = np.random.default_rng(0), write(tmp_path, *(scalar("a", step, 1.0) for step in range(20)))
    whole = path.read_bytes()
    for _ in range(300):
        content = bytearray(whole[: random.integers(0, len(whole) + 1)])
        for place in random.integers(0, max(1, len(content)), 2):
            content[place:place] = random.bytes(int(random.integers(0, 3)))
        path.write_bytes(content)
        read_events([path])


def test_hyperparameters_come_from_the_sub_run_of_add_hparams(tmp_path: Path) -> None:
    for number, rate in enumerate((0.1, 0.01)):
        run = tmp_path / "logs" / f"run{number}"
        write(run, scalar("val/acc", 1, 0.5), scalar("val/acc", 2, 0.25 + number), scalar("train/loss", 100, 3.0))
        write(run / "1766863586.89", hparams(lr=rate, layers=4, name="x", deep=bool(number)), scalar("best", 0, 0.5))
    table = read_foreign(tmp_path / "logs").table
    assert [row["run"] for row in table.rows] == ["run0", "run1"]
    assert list(table.axes) == ["lr", "deep"] or sorted(table.axes) == ["deep", "lr"]
    assert [(row["lr"], row["val/acc"], row["best_step"]) for row in table.rows] == [
        (0.1, 0.5, 1),
        (0.01, 1.25, 2),
    ]
    assert [(row["train/loss (last)"], row["best (last)"], row["state"]) for row in table.rows] == [
        (3.0, 0.5, "logged")
    ] * 2


@pytest.mark.parametrize(
    ("names", "axes"),
    [
        (["k=0_lr=0.1_bc=64-64", "k=1_lr=1e-4_bc=64-64", "k=2_lr=1e-4_bc=8-8"], {"lr": [0.1, 1e-4, 1e-4]}),
        (["net_lr_0.1_bs_64", "net_lr_0.01_bs_64", "net_lr_0.01_bs_32"], {"lr": [0.1, 0.01, 0.01], "bs": [64, 64, 32]}),
        (["weight_decay=1e-4,bs=8", "weight_decay=0,bs=8"], {"weight_decay": [1e-4, 0]}),
        (["a/lr=1", "b/lr=2"], {"lr": [1, 2]}),
    ],
)
def test_without_hparams_they_come_from_the_names(tmp_path: Path, names: list[str], axes: dict[str, list[Any]]) -> None:
    for name in names:
        write(tmp_path / "logs" / name, scalar("Accuracy/val", 1, 0.5))
    rows = {row["run"]: row for row in read_foreign(tmp_path / "logs").table.rows}
    for axis, values in axes.items():
        assert [rows[name][axis] for name in names] == values
    assert all("k" not in row for row in rows.values())


def test_a_value_that_is_not_known_is_empty(tmp_path: Path) -> None:
    write(tmp_path / "logs" / "a", scalar("val/acc", 1, 0.5), scalar("val/acc", 2, math.nan), scalar("x", 1, math.inf))
    write(tmp_path / "logs" / "b", scalar("other", 1, 0.5))
    table = read_foreign(tmp_path / "logs").table
    shown = [[row[name] for name in ("val/acc", "x", "other (last)")] for row in table.rows]
    assert shown == [[0.5, None, None], [None, None, 0.5]]
    best = table.best()
    assert best is not None
    assert best["run"] == "a"


def test_the_directory_itself_may_be_the_run(tmp_path: Path) -> None:
    write(tmp_path / "logs", scalar("val/accuracy", 1, 0.5))
    assert [row["run"] for row in read_foreign(tmp_path / "logs").table.rows] == ["logs"]


def test_what_is_missing_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    with pytest.raises(RunError, match="no sweep and no TensorBoard event files"):
        read_foreign(tmp_path / "logs")
    write(tmp_path / "logs" / "a", scalar("Loss/valid", 1, 0.5))
    with pytest.raises(RunError, match=r"no run has logged val/accuracy.*\n  Loss/valid .*\n.*--metric Loss/valid$"):
        read_foreign(tmp_path / "logs", "val/accuracy")
    assert read_foreign(tmp_path / "logs").table.rows[0]["Loss/valid"] == 0.5


def test_the_command_writes_beside_the_artifacts_and_never_into_the_logs(
    small: Callable[..., Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text(dump_yaml(small().to_dict()))
    for number in range(8):
        name = f"lr={10.0 ** -(number % 2)}_wd={number // 2 % 2}_m={number // 4}"
        write(tmp_path / "logs" / name, *(scalar("val/acc", step, 0.1 * number * step) for step in (1, 2)))
    torn = next(iter(tmp_path.glob("logs/*/*tfevents*")))
    torn.write_bytes(torn.read_bytes()[:-1])
    before = sorted(path for path in (tmp_path / "logs").rglob("*"))
    aggregate.main([str(tmp_path / "logs")], config=str(tmp_path / "config.yaml"))
    shown = capsys.readouterr().out
    assert f"{torn}: damaged at byte" in shown
    assert "Each value is the best that its run has logged" in shown
    assert sorted(path for path in (tmp_path / "logs").rglob("*")) == before
    written = tmp_path / "artifacts" / "logs"
    assert {"table.csv", "aggregate.json", "effects.md", "curves.png"} <= {path.name for path in written.iterdir()}
    with (written / "table.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 8


def session_start(step: int) -> Event:
    return Event(wall_time=1.5, step=step, session_log=SessionLog(status=SessionLog.START))


def curve(tag: str, points: dict[int, float]) -> list[Event]:
    return [scalar(tag, step, value) for step, value in points.items()]


@pytest.mark.parametrize(
    ("second", "steps"),
    [
        # The issue's: a restart at 60, and fewer points than before.
        ([session_start(60), *curve("val/acc", {65: 0.5, 75: 0.5, 85: 0.5})], [0, 20, 40, 65, 75, 85]),
        # A restart before anything is logged again.
        ([session_start(60)], [0, 20, 40]),
        # No restart is recorded, but the steps go back; so for torch without purge_step.
        (curve("val/acc", {65: 0.5, 75: 0.5}), [0, 20, 40, 60, 65, 75]),
        (curve("val/acc", {60: 0.5}), [0, 20, 40, 60]),
        # A restart purges every tag, steps that go back only their own.
        ([session_start(30), *curve("other", {31: 1.0})], [0, 20]),
        (curve("other", {31: 1.0}), [0, 20, 40, 60, 80, 100]),
        # Twice; the second time further back, from the start, or at a step after all others.
        ([session_start(60), *curve("val/acc", {70: 0.5}), session_start(20), *curve("val/acc", {25: 0.5})], [0, 25]),
        ([session_start(0), *curve("val/acc", {300: 0.5})], [300]),
        ([session_start(101), *curve("val/acc", {200: 0.5})], [0, 20, 40, 60, 80, 100, 200]),
    ],
)
def test_a_run_that_went_back_has_overwritten_what_it_logged_after(
    tmp_path: Path, second: list[Event], steps: list[int]
) -> None:
    first = {0: 0.1, 20: 0.2, 40: 0.3, 60: 0.4, 80: 0.5, 100: 0.9}
    run = tmp_path / "logs" / "run"
    write(run, session_start(0), *curve("val/acc", first), name="events.out.tfevents.1.host")
    write(run, *second, name="events.out.tfevents.2.host")
    found = read_events(sorted(run.iterdir())).scalars["val/acc"]
    assert found[0] == steps
    expected = {**first, **{event.step: 0.5 for event in second if event.step not in (20, 31) and event.summary.value}}
    assert found[1] == pytest.approx([expected[step] for step in steps])


def test_a_restart_with_purge_step_changes_which_run_is_the_best(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    def log(name: str, points: dict[int, float], purge_step: int | None = None, suffix: str = "") -> None:
        with SummaryWriter(tmp_path / "logs" / name, purge_step=purge_step, filename_suffix=suffix) as writer:
            for step, value in points.items():
                writer.add_scalar("val/acc", value, step)

    log("restarted", {step: step / 100 * 0.9 for step in range(0, 101, 10)}, suffix=".1")
    log("restarted", {65: 0.5, 75: 0.5, 85: 0.5}, purge_step=60, suffix=".2")
    log("straight", {10: 0.6})
    best = read_foreign(tmp_path / "logs").table.best()
    assert best is not None
    assert (best["run"], best["val/acc"]) == ("straight", 0.6)


def test_a_sub_run_does_not_replace_the_curve_of_its_run(tmp_path: Path) -> None:
    run = tmp_path / "logs" / "run"
    write(run, scalar("val/acc", 1, 0.5), scalar("val/acc", 2, 0.25))
    write(run / "1766863586.89", hparams(lr=0.1), scalar("val/acc", 0, 0.25))
    (row,) = read_foreign(tmp_path / "logs").table.rows
    assert (row["val/acc"], row["best_step"]) == (0.5, 1)


def raw_hparams(**values: Any) -> Event:
    """Hyperparameters of the types that TensorBoard's own writer refuses."""
    made = HParamsPluginData(version=0)
    for name, value in values.items():
        made.session_start_info.hparams[name].CopyFrom(
            ParseDict(value, Value()) if not isinstance(value, Value) else value
        )
    metadata = SummaryMetadata(plugin_data={"plugin_name": "hparams", "content": made.SerializeToString()})
    return Event(summary=Summary(value=[Summary.Value(tag="_hparams_/session_start_info", metadata=metadata)]))


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([None, 0], ["null", 0]),
        ([None, "None"], ["null", "None"]),
        ([False, 0], [False, 0]),
        (["1", 1], ["1", 1]),
        ([[64, 64], [8, None]], [[64, 64], [8, None]]),
        ([{"a": [1, {"b": None}]}, {}], [{"a": [1, {"b": None}]}, {}]),
        ([Value(number_value=math.inf), 1], ["inf", 1]),
        ([Value(number_value=math.nan), Value(number_value=-math.inf)], ["nan", "-inf"]),
        ([[Value(number_value=math.inf)], 1], [["inf"], 1]),
        ([Value(), 0], ["null", 0]),
        ([1e300, 2.0**53 + 2], [1e300, 2.0**53 + 2]),
    ],
)
def test_hyperparameters_of_any_type_are_values_of_their_own(
    small: Callable[..., Config], tmp_path: Path, values: list[Any], shown: list[Any]
) -> None:
    (tmp_path / "config.yaml").write_text(dump_yaml(small().to_dict()))
    for number, value in enumerate(values):
        if isinstance(value, list) and isinstance(value[0], Value):
            value = Value(list_value=ListValue(values=value))
        given = raw_hparams(x=value, y=1.0)
        write(tmp_path / "logs" / f"run{'ab'[number]}", given, *curve("val/acc", {1: 0.1, 2: 0.5 + number / 10}))
    table = read_foreign(tmp_path / "logs").table
    assert [row["x"] for row in table.rows] == shown
    assert [len(rows) for rows in table.comparable_rows().values()] == [1, 1]
    aggregate.main([str(tmp_path / "logs")], config=str(tmp_path / "config.yaml"))
    written = tmp_path / "artifacts" / "logs"
    answer = json.loads((written / "aggregate.json").read_text())
    assert len(answer["effects"]["levels"]["x"]) == 2
    assert "null" not in shown or any("null" in verdict for verdict in answer["effects"]["verdicts"])
    assert {"table.csv", "table.parquet", "effects.md"} <= {path.name for path in written.iterdir()}


@pytest.mark.parametrize("name", ["lr=.inf", "lr=1e999", "lr=.nan", "clip=-.inf"])
def test_numbers_in_names_that_json_lacks_are_texts(small: Callable[..., Config], tmp_path: Path, name: str) -> None:
    (tmp_path / "config.yaml").write_text(dump_yaml(small().to_dict()))
    for each in (name, f"{name.partition('=')[0]}=1"):
        write(tmp_path / "logs" / each, scalar("val/acc", 1, 0.5))
    aggregate.main([str(tmp_path / "logs")], config=str(tmp_path / "config.yaml"))
    assert "Infinity" not in (tmp_path / "artifacts" / "logs" / "aggregate.json").read_text()


def test_a_tensor_without_a_value_is_skipped(tmp_path: Path) -> None:
    empty = Event(step=1, summary=Summary(value=[Summary.Value(tag="a", tensor=TensorProto(dtype=1))]))
    short = Event(
        step=2, summary=Summary(value=[Summary.Value(tag="a", tensor=TensorProto(dtype=2, tensor_content=b"xyz"))])
    )
    path = write(tmp_path, empty, short, scalar("a", 3, 1.0))
    assert values_of(path) == {"a": ([3], [1.0])}
