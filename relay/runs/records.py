"""The schema of each file in a run directory, validated whenever the file is read. Unknown keys are kept.

What does not fit is an error: the message names the file, the line and what to do.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Required

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, with_config
from typing_extensions import TypedDict

from relay.runs.file_schema import FileSchema

# Strict: "3" is not 3. Validators are built on first use: `--help` reads no file and should not pay for them.
_CONFIG = ConfigDict(extra="allow", strict=True, defer_build=True)
_record = with_config(_CONFIG)

# The bounds keep values within what dates, process ids and folder names can hold, so that using them cannot fail.
Seconds = Annotated[float, Field(ge=-1e9, le=1e11)]
Step = Annotated[int, Field(ge=0, le=10**15)]
Whole = Annotated[int, Field(ge=-(2**63), lt=2**63)]
# Of a sweep or pipeline, see relay/runs/numbering.py. Without an upper bound: the next one has a larger number.
SweepNumber = Annotated[int, Field(ge=1)]
# Larger than any float32. matplotlib cannot scale axes to values near the largest float64.
_MOST = 1e39
Number = Whole | Annotated[float, Field(ge=-_MOST, le=_MOST)] | None
# Not empty, not dots alone, no slash: a folder inside its sweep.
RunName = Annotated[str, StringConstraints(pattern=r"^[^/\x00]*[^/\x00.][^/\x00]*$", max_length=255)]
Word = Annotated[str, StringConstraints(pattern=r"^\w[\w.+-]*$", max_length=200)]
KeyPath = Annotated[str, StringConstraints(pattern=r"^\w+(\.\w+)+$")]


# Read by pieces, also before it is validated as a whole.
Sections = dict[str, dict[str, Any]]


@_record
class Code(TypedDict, total=False):
    """The version of the code, in sweep.yaml; null without git."""

    commit: str | None
    dirty: bool | None


@_record
class Origin(TypedDict, total=False):
    """The sweep and the run that a refined grid is around, in sweep.yaml."""

    sweep: Required[RunName]
    run: Required[RunName]


@with_config(ConfigDict(extra="forbid", strict=True, defer_build=True))
class CallRecord(TypedDict, total=False):
    """The command line that made a sweep or pipeline, and the profile of its tasks: `hints.Call`."""

    module: Required[Annotated[str, StringConstraints(pattern=r"^(relay|(hpc|src)\.\w+)$")]]
    arguments: Required[list[str]]
    options: Required[list[str]]
    cluster: Required[str | None]


@_record
class SelectRecord(TypedDict, total=False):
    """The column that ranks the runs of a sweep, in sweep.yaml."""

    column: Required[str]
    direction: Required[Literal["max", "min"]]


@_record
class Meta(TypedDict, total=False):
    """sweep.yaml."""

    kind: Required[str]
    key: Required[str]
    number: Required[SweepNumber]
    created: Required[str]
    config: Required[Sections]
    call: Required[CallRecord]
    inputs: Required[str]
    last_key: Required[str]
    axis_names: Required[dict[str, str]]
    select: Required[SelectRecord]
    is_grid: Required[bool]
    project: Word
    tag: str
    cells: Annotated[int, Field(ge=0)] | None
    code: Code
    snapshot: Required[Word]
    origin: Origin | None


@_record
class CellLine(TypedDict, total=False):
    """A line of cells.jsonl: a `PlannedRun`."""

    index: Required[Annotated[int, Field(ge=0)]]
    name: Required[RunName]
    key: Required[str]
    overrides: Required[dict[KeyPath, Any]]
    data: str | None
    cost_key: Required[str]
    units: Required[Annotated[float, Field(gt=0, le=1e15)]]


@_record
class AttemptLine(TypedDict, total=False):
    """A line of attempts.jsonl: what was known about an attempt when the line was written. Joined, its lines are an
    `Attempt`, which says what each of these is.
    """

    attempt: Required[Annotated[int, Field(ge=1, le=10**9)]]
    start: Seconds
    end: Seconds
    retried: Seconds
    cause: str
    error: str | None
    job: Word | None
    cluster: str | None
    restarts: Annotated[int, Field(ge=0)] | None
    slice: str | None
    at_once: Annotated[int, Field(ge=1, le=10**6)]
    code: str
    node: str
    # kill(2) takes 0 and negative ids as process groups.
    pid: Annotated[int, Field(ge=1, lt=2**31)]
    first_step: Step
    last_step: Step
    reached_step: Step
    total_steps: Step
    environments: list[dict[str, str]]
    job_start: Seconds | None
    first_step_at: Seconds | None
    host_mb: Step | None
    gpu_mb: Step | None
    save_s: Annotated[float, Field(ge=0, le=1e9)] | None


@_record
class Suggestion(TypedDict, total=False):
    """The learning rates that an LR sweep suggests."""

    steepest: Number
    valley: Number


@_record
class Measured(TypedDict, total=False):
    """The result of a training, an LR sweep or an evaluation."""

    outcome: str
    # Of the table of results, in this order.
    columns: dict[str, Number | str]
    environments: list[dict[str, str]]
    steps: Step | None
    epochs: Number
    train: dict[str, Number] | None
    val: dict[str, Number] | None
    best: dict[str, Number] | None
    train_seconds: Number
    images_per_s: Number
    host_mb: Step | None
    gpu_mb: Step | None
    suggestion: Suggestion | None
    split: str
    n: Step
    accuracy: Number
    ece: dict[str, Any] | None
    intervals: dict[str, list[float]]
    # An LR sweep has one loss per step.
    loss: Number | list[Number]
    checkpoint: str


@_record
class Result(Measured, total=False):
    """result.json. `seal`: see relay/runs/seal.py."""

    status: Required[str]
    seal: Required[dict[str, str]]


@_record
class Source(TypedDict, total=False):
    """best.json beside best.ckpt in artifacts/: where the weights come from."""

    run: Required[str]
    sha256: Required[str]
    measured_on: dict[str, Any] | None
    result: Measured | None


@_record
class Owner(TypedDict, total=False):
    """.owner.json."""

    token: Required[str]
    node: str


def _answered(line: SubmissionLine) -> SubmissionLine:
    if not {"tasks", "job_id", "unseen"} & line.keys():
        raise ValueError("it has neither tasks nor a job_id")
    return line


@_record
class SubmissionLine(TypedDict, total=False):
    """A line of submissions.jsonl: an intent with its tasks, the job's id, or why the queue does not show it."""

    job_name: Required[Word]
    job_id: Word
    unseen: str
    tasks: list[list[RunName]]
    time: Seconds
    cluster: str


@_record
class PipelineMeta(TypedDict, total=False):
    """pipeline.yaml."""

    key: Required[str]
    number: Required[SweepNumber]
    created: Required[str]
    folder: Required[str]
    fresh: Required[bool]
    config: Required[Sections]
    options: Required[dict[str, Any]]
    call: Required[CallRecord]
    snapshot: Required[Word]


def _of_stage_or_job(line: StageLine) -> StageLine:
    if not ({"stage", "state"} <= line.keys() or "job_name" in line):
        raise ValueError("it has neither a stage with its state nor a job_name")
    return line


@_record
class StageLine(TypedDict, total=False):
    """A line of stages.jsonl of a pipeline: of a stage, or of a job that continues the pipeline."""

    stage: str
    state: str
    sweep: RunName
    result: str
    reason: str
    job_name: Word
    unseen: str


def _positioned(row: dict[str, Any]) -> dict[str, Any]:
    for key in ("step", "time", *(["epoch"] if "epoch" in row else [])):
        if not isinstance(row.get(key), int if key == "step" else int | float):
            raise ValueError(f"{key}: must be a {'whole number' if key == 'step' else 'number'}")
    if not 0 <= row["step"] <= 10**15:
        raise ValueError("step: must be from 0 to 10^15")
    for key, value in row.items():
        if value is not None and _MOST < abs(value) < float("inf"):
            raise ValueError(f"{key}: must be from {-_MOST:g} to {_MOST:g}")
    return row


_BACK = "it was damaged or written by something else: restore it"
META = FileSchema(Meta, f"{_BACK}, or move the folder away")
CELL = FileSchema(CellLine, f"{_BACK}, or start the same runs over with --fresh")
SUBMISSION = FileSchema(Annotated[SubmissionLine, AfterValidator(_answered)], f"{_BACK}, or remove the line")
ATTEMPT = FileSchema(AttemptLine, f"{_BACK}, or remove the line")
METRICS = FileSchema(
    Annotated[dict[str, Whole | float | None], AfterValidator(_positioned)],
    f"{_BACK}, or start the run over with --fresh",
    ConfigDict(strict=True),
)
RESULT = FileSchema(Result, f"{_BACK}, or remove it: the run then resumes from its checkpoint")
SOURCE = FileSchema(Source, _BACK)
OWNER = FileSchema(Owner, f"{_BACK}, or remove it once no process executes the run")
PIPELINE = FileSchema(PipelineMeta, f"{_BACK}, or move the folder away")
STAGE = FileSchema(Annotated[StageLine, AfterValidator(_of_stage_or_job)], f"{_BACK}, or remove the line")
