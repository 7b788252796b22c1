"""The effects of a grid in words and tables: effects.csv and effects.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from src.files import replace_file
from src.results.effects import Effects, Term
from src.results.ranking import Ranking
from src.results.table_files import markdown, write_rows
from src.text import counted

SIGNIFICANT = 0.05


def effects_json(effects: Effects, select: Ranking) -> dict[str, Any]:
    """The effects for aggregate.json, see src/results/answer.py."""
    return {
        "complete": effects.complete,
        "noise": effects.noise,
        "noise_degrees": effects.degrees,
        "least_significant_difference": effects.lsd,
        "threshold": effects.threshold,
        "terms": _terms(effects),
        "levels": {axis: _levels(effects, axis) for axis in effects.levels},
        "verdicts": verdicts(effects, select),
    }


def write_effects(effects: Effects, select: Ranking, folder: Path) -> list[Path]:
    """Write effects.csv, one line per term, and effects.md, with the means of the levels and a verdict per axis."""
    terms = _terms(effects)
    parts = [f"# What each hyperparameter did to {select.column}\n", method(effects) + "\n", markdown(terms)]
    for axis in effects.levels:
        levels = [{axis: level.pop("value"), **level} for level in _levels(effects, axis)]
        parts += [f"## {axis}\n", verdict(effects, axis, select) + "\n", markdown(levels)]
    path = folder / "effects.md"
    replace_file(path, "\n".join(parts))
    return [*write_rows(terms, folder / "effects", ("csv",)), path]


def _terms(effects: Effects) -> list[dict[str, Any]]:
    return [
        {"term": term.name, "share": term.share, "p_value": term.p_value, "degrees_of_freedom": term.degrees}
        for term in effects.terms
    ]


def _levels(effects: Effects, axis: str) -> list[dict[str, Any]]:
    return [
        {"value": level.value, "runs": level.n, "mean": level.mean}
        | dict(zip(("low", "high"), level.interval or (None, None), strict=True))
        for level in effects.levels[axis]
    ]


def method(effects: Effects) -> str:
    """How the effects were found, and what that does not cover."""
    how = "A complete grid, so the shares are exact" if effects.complete else "An incomplete grid, by least squares"
    lines = [f"Shares of the variance between {effects.cells} settings ({counted(effects.runs, 'run')}). {how}."]
    if effects.noise is None or effects.lsd is None or effects.threshold is None:
        return f"{lines[0]}\nThere are too few runs to estimate the noise, so that there are no tests."
    lines.append(noise_sentence(effects))
    lines.append(f"The least significant difference between two settings is {effects.lsd:.4f};")
    lines.append(f"between the best of all and another one, it is {effects.threshold:.4f}.")
    return "\n".join(lines)


def noise_sentence(effects: Effects) -> str:
    """How large the noise of a run is, where that comes from, and what it does not cover."""
    degrees = f"{counted(effects.degrees, 'degree')} of freedom"
    size = f"The standard deviation of a run, {effects.noise:.4f}, is estimated from"
    if effects.noise_source == "seeds":
        return f"{size} the seeds ({degrees})."
    what = "what main effects and pairs leave" if effects.noise_source == "higher interactions" else "the interaction"
    return f"{size} {what} ({degrees}): with one seed per setting, the noise between seeds is mixed into it."


def verdicts(effects: Effects, select: Ranking) -> list[str]:
    """One sentence per axis."""
    return [verdict(effects, axis, select) for axis in effects.levels]


def verdict(effects: Effects, axis: str, select: Ranking) -> str:
    """What the axis did, in one sentence."""
    (main,) = (term for term in effects.terms if term.axes == (axis,))
    pairs = [term for term in effects.terms if axis in term.axes and len(term.axes) > 1 and _is_clear(term)]
    levels = sorted(effects.levels[axis], key=lambda level: -select.score(level.mean))
    best, worst = levels[0], levels[-1]
    if main.share is None:
        return f"{axis}: cannot be told apart from the other axes in these {counted(effects.runs, 'run')}"
    between = f"by {abs(best.mean - worst.mean):.4f} against {worst.shown}"
    between += ", the worst" if len(levels) > 2 else ""
    if main.p_value is None:
        return (
            f"{axis}: {best.shown} is best on average, {between}; there are too few runs to say whether "
            f"this is more than noise ({_numbers(main)})"
        )
    depends = " and ".join(next(other for other in pair.axes if other != axis) for pair in pairs)
    if _is_clear(main):
        more = f"; how much depends on {depends}" if depends else ""
        return f"{axis}: {best.shown} is best on average, {between} ({_numbers(main)}){more}"
    if depends:
        return f"{axis}: no effect on average, but one that depends on {depends} ({_numbers(main)})"
    return f"{axis}: no effect that these {effects.runs} runs can show ({_numbers(main)})"


def _is_clear(term: Term) -> bool:
    return term.p_value is not None and term.p_value < SIGNIFICANT


def _numbers(term: Term) -> str:
    share: Any = f"{100 * (term.share or 0):.1f} % of the variance between settings"
    if term.p_value is None:
        return str(share)
    p_value = "p < 0.001" if term.p_value < 0.001 else f"p = {term.p_value:.3f}"
    return f"{p_value}, {share}"
