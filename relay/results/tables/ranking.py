"""By which column rows are ranked, and what the name of a metric says: which way is better, and whether it is a share.

Another program's metric is known by its name alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import Literal

Direction = Literal["max", "min"]


def words_of(name: str) -> list[str]:
    """The words of a metric's name, in lower case: `eval/top5_accuracy` has eval, top5 and accuracy; `BinaryAccuracy`
    has binary and accuracy; and `mAP` is one word.
    """
    return re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z]{2})(?=[A-Z][a-z]{2})", " ", name).lower())


def has_word(name: str, known: Set[str]) -> bool:
    """Whether one of the words of a name is known, with or without a number at its end: acc1, mAP50, ndcg10."""
    return any(word in known or word.rstrip("0123456789") in known for word in words_of(name))


# Words of a name that say that lower is better; so does a word that ends in "loss".
_LOWER = frozenset(
    words_of(
        "error err errors perplexity ppl mse rmse mae mape smape rmsle wer cer ter eer fid kid lpips nll bpb bpc ece "
        "brier hinge cost regret xent divergence distance deviance seconds runtime latency duration"
    )
)
# Words that say that higher is better.
_HIGHER = frozenset(
    words_of(
        "accuracy acc top1 top3 top5 top10 f1 f2 precision recall sensitivity specificity auc auroc auprc map ap ar "
        "iou miou dice reward rewards rew return returns score bleu sacrebleu rouge rouge1 rouge2 rougel meteor cider "
        "spice psnr ssim r2 pearson spearman kappa mcc ndcg mrr success fps throughput elbo likelihood"
    )
)
# Words of values that lie between 0 and 1, if they are no percentages.
_SHARES = frozenset(words_of("accuracy acc top1 top5 f1 precision recall auc auroc iou miou dice map ap"))


@dataclass(frozen=True)
class Ranking:
    """The `column` of a table by which its rows are ranked, and which way is better.

    `is_bounded`: whether all values of the column lie in [0, 1].
    """

    column: str = "val/accuracy"
    direction: Direction = "max"
    is_bounded: bool = True

    @property
    def name(self) -> str:
        """The column without the split, if that is val: `accuracy`."""
        return self.column.removeprefix("val/")

    @property
    def is_share(self) -> bool:
        """Whether the values are shares: nothing below 0 or above 1 is possible."""
        return self.is_bounded and self.direction == "max" and has_word(self.column, _SHARES)

    def score(self, value: float) -> float:
        """`value` with the sign for which greater is better."""
        return value if self.direction == "max" else -value


def ranking_of(column: str, direction: Direction, values: Iterable[float | None]) -> Ranking:
    """The ranking by a column whose known values are `values`."""
    return Ranking(column, direction, all(value is None or 0 <= value <= 1 for value in values))


def direction_of(name: str) -> Direction | None:
    """Which way is better, as far as the name says it: `min` of val_loss, `max` of eval/accuracy, None of grad_norm."""
    words = words_of(name)
    if has_word(name, _LOWER) or any(word.endswith("loss") for word in words) or "crossentropy" in "".join(words):
        return "min"
    return "max" if has_word(name, _HIGHER) else None
