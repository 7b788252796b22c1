"""Data source: the Hugging Face Hub. A download fails fast without a network."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from relay.errors import DataError
from relay.log import log
from relay.text import brief
from relay.user import expanded
from src.config.schema import Config, Dataset
from src.data.reading import Opened, count_rows, read_folder

_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*")
_TIMEOUT_S = 10.0  # for the Hub's first answer


def recognizes(name: str) -> bool:
    """Whether `name` has the form owner/name."""
    return _NAME.fullmatch(name) is not None


def locate(name: str) -> str:
    """The name itself. Raises DataError if it is not a Hub name."""
    if not recognizes(name):
        raise DataError(f"dataset.name: {name!r} is not a Hub name; write owner/name, such as zh-plus/tiny-imagenet")
    return name


def identity(config: Config) -> dict[str, Any]:
    """The revision."""
    return {"revision": config.dataset.revision}


def open_splits(config: Config, scratch: Path) -> Opened:
    """The splits of the configuration, downloaded into <dataset.root>/hub. Raises DataError."""
    folder = download(config.dataset)
    # The Hub's library keeps the content of a data set in blobs/, and links to it from snapshots/<revision>/.
    linked = folder.parent.parent
    return read_folder(folder, config.dataset.name, config.dataset, scratch, whole=True, linked=linked)


def count(config: Config) -> int | None:
    """How many images the splits of the configuration have, see `count_rows`; None if they are not downloaded."""
    import huggingface_hub

    dataset = config.dataset
    try:
        folder = huggingface_hub.snapshot_download(
            dataset.name,
            repo_type="dataset",
            revision=dataset.revision,
            cache_dir=expanded(dataset.root) / "hub",
            local_files_only=True,
        )
    except (OSError, ValueError):
        return None
    return count_rows(Path(folder), dataset.name, dataset, whole=True)


def download(dataset: Dataset) -> Path:
    """The folder of the downloaded data set. HF_ENDPOINT, HF_HUB_OFFLINE and HF_TOKEN work as in huggingface_hub."""
    import huggingface_hub

    cache = expanded(dataset.root) / "hub"
    log.info(f"fetching {dataset.name} into {cache}")
    unusable = _why_not_online(dataset)
    # A complete earlier download is used even if the Hub cannot be reached now: compute nodes often have no network.
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
            f"{_shown(dataset)}: {unusable or brief(error)}, and {cache} has no complete copy. "
            f"Fetch it once where there is a network (dataset.download=true, HF_HUB_OFFLINE unset), "
            f"name a mirror with HF_ENDPOINT=<address>, or set dataset.name to a local folder in the same layout"
        ) from None
    return Path(folder)


def _shown(dataset: Dataset) -> str:
    return f"dataset.name: {dataset.name} (revision {dataset.revision or 'main'})"


def _why_not_online(dataset: Dataset) -> str | None:
    """Why only local files can be used; None if the Hub answers. Raises DataError if it has no such data set."""
    import huggingface_hub
    from huggingface_hub import constants, errors

    if not dataset.download:
        return "dataset.download is false"
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        # snapshot_download retries for minutes on a network that drops packets; this request fails after _TIMEOUT_S.
        huggingface_hub.HfApi().dataset_info(dataset.name, revision=dataset.revision, timeout=_TIMEOUT_S)
    except errors.RevisionNotFoundError:
        raise DataError(
            f"{_shown(dataset)}: the Hub has no such revision; set dataset.revision to null or to one it has"
        ) from None
    except errors.GatedRepoError:
        raise DataError(
            f"{_shown(dataset)}: {constants.ENDPOINT} gives it only to those who accepted its conditions; accept them "
            "on its page there, then set HF_TOKEN to a token of that account"
        ) from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        # The Hub answers 401, and not 404, to those who may not know whether there is such a data set.
        if status == 401 and huggingface_hub.get_token():
            raise DataError(
                f"{_shown(dataset)}: {constants.ENDPOINT} refuses your token (401), or has no such data set; check the "
                "name, set HF_TOKEN to a valid token, or unset it and log out of the Hub if the data set is public"
            ) from None
        if status == 401 or isinstance(error, errors.RepositoryNotFoundError):
            raise DataError(
                f"{_shown(dataset)}: {constants.ENDPOINT} has no such data set, or you may not read it; check the "
                f"name, set HF_TOKEN if it is private, HF_ENDPOINT if it is elsewhere, or use a local folder"
            ) from None
        if status == 429:
            wait = error.response.headers.get("Retry-After", "")
            when = f"in {wait} s" if wait.isdigit() else "in a few minutes"
            return f"{constants.ENDPOINT} has too many requests from here (429; try again {when}, or set HF_TOKEN)"
        return f"{constants.ENDPOINT} cannot be reached ({brief(error)})"
    except Exception as error:
        return f"{constants.ENDPOINT} cannot be reached ({brief(error)})"
    return None
