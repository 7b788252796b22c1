"""Fetching a data set from the Hub, quickly refused where that cannot be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from src.errors import DataError
from src.schema import Dataset

Progress = Callable[[str], None]
_PATIENCE_S = 10.0  # for the Hub's first answer


def download(dataset: Dataset, progress: Progress) -> Path:
    """The folder with the Hub data set; HF_ENDPOINT, HF_HUB_OFFLINE and HF_TOKEN hold as in the Hub's library."""
    import huggingface_hub

    cache = Path(dataset.root).expanduser() / "hub"
    progress(f"fetching {dataset.name} into {cache}")
    unusable = _why_not_online(dataset)
    try:
        folder = huggingface_hub.snapshot_download(
            dataset.name,
            repo_type="dataset",
            revision=dataset.revision,
            cache_dir=cache,
            local_files_only=unusable is not None,
        )
    except Exception as error:
        raise DataError(
            f"{_shown(dataset)}: {unusable or brief(error)}, and it is not in full in {cache}. "
            f"Fetch it once where there is a network (dataset.download=true, HF_HUB_OFFLINE unset), "
            f"name a mirror with HF_ENDPOINT=<address>, or set dataset.name to a local folder in the same layout"
        ) from None
    return Path(folder)


def _shown(dataset: Dataset) -> str:
    return f"dataset.name: {dataset.name} (revision {dataset.revision or 'main'})"


def _why_not_online(dataset: Dataset) -> str | None:
    """Why only what is on disk can be used, None where the Hub answers. DataError where it knows no such data set."""
    import huggingface_hub
    from huggingface_hub import constants, errors

    if not dataset.download:
        return "dataset.download is false"
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        # The download itself waits for minutes on a network that swallows packets; this asks once.
        huggingface_hub.HfApi().dataset_info(dataset.name, revision=dataset.revision, timeout=_PATIENCE_S)
    except errors.RevisionNotFoundError:
        raise DataError(
            f"{_shown(dataset)}: the Hub has no such revision; set dataset.revision to null or to one it has"
        ) from None
    except errors.RepositoryNotFoundError:
        raise DataError(
            f"{_shown(dataset)}: {constants.ENDPOINT} has no such data set, or not for you; check the name, "
            f"set HF_TOKEN if it is private, HF_ENDPOINT if it is elsewhere, or use a local folder"
        ) from None
    except Exception as error:
        return f"{constants.ENDPOINT} cannot be reached ({brief(error)})"
    return None


def brief(error: BaseException) -> str:
    """The first line of what went wrong, from the error that caused the others."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
