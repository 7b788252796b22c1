"""By which tag another program's runs are ranked: the one that was asked for, or the only obvious one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from relay import hints
from relay.errors import RunError
from relay.results.foreign.runs import ForeignRun
from relay.results.tables.ranking import Direction, direction_of, has_word, words_of
from relay.text import counted

Runs = Mapping[str, ForeignRun]

_SHOWN = 12
# The splits on which runs may be compared, the first one that was logged before the others.
_HELD_OUT: tuple[frozenset[str], ...] = (
    frozenset({"val", "valid", "validation", "dev"}),
    frozenset({"eval", "evaluation"}),
    frozenset({"test", "testing"}),
)
_ALL_HELD_OUT = _HELD_OUT[0].union(*_HELD_OUT[1:])
_TRAIN = frozenset({"train", "training"})
# What a run is judged by. Its parts (precision and recall, top 5) and the loss come second.
_SCORES = frozenset(
    words_of(
        "accuracy acc top1 f1 auc auroc map ap iou miou dice reward rew return bleu rouge psnr ssim mrr ndcg mcc "
        "kappa wer cer perplexity ppl fid rmse mae error"
    )
)
# Words that leave the meaning of a tag as it is.
_NEUTRAL = frozenset(words_of("epoch mean avg total"))


def metric_of(
    directory: Path, runs: Runs, asked: str | None, direction: Direction | None
) -> tuple[str, Direction, str]:
    """The tag, which way is better, and a sentence that says so.

    `asked`: a tag, or its end, such as mAP of eval/mAP. Raises RunError, which lists the tags, if no run has logged it,
    or if none was asked for and several tags are as good.
    """
    tags = sorted({tag for run in runs.values() for tag in run.scalars})
    if not tags:
        raise RunError(f"{directory}: the TensorBoard event files of {counted(len(runs), 'run')} hold no scalars")
    tag = _named(directory, runs, tags, asked) if asked else _obvious(directory, runs, tags)
    found = direction or direction_of(tag)
    logged = sum(tag in run.scalars for run in runs.values())
    sentences = [
        f"Ranked by {tag}: {'lower' if found == 'min' else 'higher'} is better; "
        f"{logged} of {counted(len(runs), 'run')} logged it."
    ]
    if found is None:
        sentences.append("Its name does not say which way is better: for the opposite, add --direction min.")
    if not asked and not set(words_of(tag)) & _ALL_HELD_OUT:
        sentences.append("Its name does not say that it was measured on held-out data.")
    if set(words_of(tag)) & _ALL_HELD_OUT and set(words_of(tag)) & _ALL_HELD_OUT <= _HELD_OUT[-1]:
        sentences.append("Runs that are chosen by their results on test look better there than they are.")
    if not asked and len(tags) > 1:
        sentences.append(f"For another tag: {_command(directory, 'TAG')}")
    return tag, found or "max", " ".join(sentences)


def _command(directory: Path, tag: str) -> str:
    return hints.python("hpc.aggregate", str(directory), "--metric", tag)


def _named(directory: Path, runs: Runs, tags: Sequence[str], asked: str) -> str:
    alike = [tag for tag in tags if tag.lower() == asked.lower()]
    ends = [tag for tag in tags if tag.lower().endswith(f"/{asked.lower()}")]
    for found in ([tag for tag in tags if tag == asked], alike, ends):
        if len(found) == 1:
            return found[0]
    close = ends or alike or get_close_matches(asked, tags, _SHOWN, 0.4)
    listed = _listed(runs, list(dict.fromkeys([*close, *_by_use(tags)])))
    raise RunError(
        f"{directory}: no run has logged {asked}; they have logged:\n{listed}\n"
        f"for example: {_command(directory, (close or _by_use(tags))[0])}"
    )


def _obvious(directory: Path, runs: Runs, tags: Sequence[str]) -> str:
    found = _candidates(tags) or (list(tags) if len(tags) == 1 else [])
    if len(found) == 1:
        return found[0]
    several = f"{len(found)} tags could rank the runs" if found else "no tag is known to rank runs"
    # Beside losses, scores whose names have no split.
    scores = [] if any(has_word(tag, _SCORES) for tag in found) else [tag for tag in tags if has_word(tag, _SCORES)]
    shown = [*found, *scores] if found else _by_use(tags)
    raise RunError(
        f"{directory}: {several}; choose one with --metric:\n{_listed(runs, shown)}\n"
        f"for example: {_command(directory, shown[0])}"
    )


def _listed(runs: Runs, tags: Sequence[str]) -> str:
    lines = []
    for tag in tags[:_SHOWN]:
        own = [run.scalars[tag] for run in runs.values() if tag in run.scalars]
        last = own[-1][1][-1]
        lines.append(f"  {tag}  in {len(own)} of {counted(len(runs), 'run')}, last value {last:.4g}")
    return "\n".join([*lines, *([f"  and {len(tags) - _SHOWN} more"] if len(tags) > _SHOWN else [])])


def _by_use(tags: Sequence[str]) -> list[str]:
    """The tags, those that may rank runs first."""

    def rank(tag: str) -> tuple[bool, bool]:
        return not set(words_of(tag)) & _ALL_HELD_OUT, direction_of(tag) is None

    return sorted(tags, key=rank)


def _candidates(tags: Sequence[str]) -> list[str]:
    """The tags by which runs may be ranked: the scores of the first split that has any, else its losses."""
    words = {tag: set(words_of(tag)) for tag in tags}
    groups = [[tag for tag in words if words[tag] & split and not _is_later(words[tag], split)] for split in _HELD_OUT]
    groups.append([tag for tag in words if not words[tag] & (_ALL_HELD_OUT | _TRAIN)])
    for group in groups:
        scores = [tag for tag in group if has_word(tag, _SCORES) and not _is_part(tag)]
        losses = [tag for tag in group if any(word.endswith("loss") for word in words[tag])]
        for found in (scores, losses):
            if found:
                # AP50 is a variant of AP.
                return _plainest(
                    {
                        tag: words[tag].union(word.rstrip("0123456789") for word in words[tag]) - _NEUTRAL
                        for tag in found
                    }
                )
    return []


def _is_later(words: set[str], split: frozenset[str]) -> bool:
    """Whether a split that comes before `split` is named, too, as in eval/val_loss."""
    return any(words & other for other in _HELD_OUT[: _HELD_OUT.index(split)])


def _is_part(tag: str) -> bool:
    return any(re.fullmatch(r"(top|acc|accuracy)0*([2-9]|10)|.*loss", word) for word in words_of(tag))


def _plainest(words: Mapping[str, set[str]]) -> list[str]:
    """The tags that are no variants of another one, whose words they have and more: mAP_50 of mAP, max_loss of loss."""
    return [tag for tag, own in words.items() if not any(other < own for other in words.values())]
