"""From a YAML file and overrides to a validated `Config`.

src/config/schema.py defines the sections, src/config/validation.py the rules between them, relay/config/messages.py
words the errors.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from relay.config import yaml_file
from relay.config.messages import describe, listed
from relay.config.overrides import parse_override, set_key
from relay.config.sections import Section, absolute_below, as_lists, as_tuples
from relay.errors import ConfigError
from relay.program.own_code import is_own
from relay.projects.kind import SECTION
from relay.runs.rundir import RunDir
from src.config.schema import CONSTANT_KEYS, UNION_KEYS, Compare, Config, Hparams, Variant
from src.config.validation import BASE, disagreements, is_same_experiment, key_path, networks_of
from src.models.options import Model
from src.models.registry import is_ours


def make_config(content: Mapping[str, Any], source: str, overrides: Mapping[str, Any] | None = None) -> Config:
    """Validate plain values after applying `overrides` (key path -> value) to a copy of them.

    Raises ConfigError, whose message begins with `source` and lists every problem: key path, value, what is allowed.
    """
    values = json.loads(json.dumps(content))
    for path, value in (overrides or {}).items():
        set_key(values, path, value)
    # YAML reads `train:` with nothing below it as null. It means the defaults, as an absent section does.
    values = {
        name: section for name, section in values.items() if section is not None or name not in Config.model_fields
    }
    try:
        config = Config.model_validate(as_tuples(values))
    except ValidationError as error:
        text = describe(error, Config, source, CONSTANT_KEYS, UNION_KEYS)
        raise ConfigError(text + _where_options_stand(values.get("model"))) from None
    problems = list(disagreements(config))
    if problems:
        raise ConfigError(listed(problems, source))
    return config


def _where_options_stand(model: Any) -> str:
    """What to do with an option of a network that is not ours, if it stands beside ours."""
    name = model.get("type") if isinstance(model, Mapping) else None
    if not isinstance(name, str) or is_ours(name) or model.keys() <= Model.model_fields.keys():
        return ""
    return f"\n  the options of {name} stand below model.options: options: {{name: value}}"


def with_values(config: Config, values: Mapping[str, Any]) -> Config:
    """The configuration with plain `values` by key path; sections without any are the same objects.

    Raises ConfigError as `make_config`.
    """
    content = config.to_dict()
    for path, value in values.items():
        set_key(content, path, value)
    names = {path.partition(".")[0] for path in values}
    sections = {name: type(getattr(config, name)).model_validate(as_tuples(content[name])) for name in names}
    made = config.model_copy(update=sections)
    problems = list(disagreements(made))
    if problems:
        raise ConfigError(listed(problems, "the configuration with what the data has"))
    return made


def config_of(run: RunDir) -> Config:
    """The configuration of a run, whose project is the frozen one. Raises RunError if there is none, ConfigError if it
    is invalid.
    """
    config = make_config(run.config(), str(run.config_file))
    sweep = run.sweep()
    if not config.own_code or not sweep.meta_file.is_file():
        return config
    frozen = (sweep.project / sweep.meta()["project"]).absolute()
    return config.model_copy(update={"project": config.project.model_copy(update={"path": str(frozen)})})


def variant_overrides(config: Config, variant: Variant) -> dict[str, Any]:
    """Key path -> plain value of a variant of the configuration."""
    return {key_path(config, path): as_lists(value) for path, value in variant.set.items()}


def _names_own_code(config: Config) -> bool:
    """Whether the configuration, an axis or a variant names code of the user's project."""
    searched = [value for values in config.hparams.axes.values() if isinstance(values, tuple) for value in values]
    changed = [value for variant in config.compare.variants.values() for value in variant.set.values()]
    return bool(config.own_code) or any(isinstance(value, str) and is_own(value) for value in (*searched, *changed))


def _variant_problems(config: Config, *, overridden: bool) -> Iterator[str]:
    """The problems that are seen only in the configuration of a variant.

    If the base was `overridden` for one call, a variant may equal it: the call may be one that reads no variants.
    """
    variants, seen = Variants(config, "compare.variants"), {BASE: config}
    for name, variant in config.compare.variants.items():
        where = f"compare.variants.{name}"
        try:
            made = variants.make(variant_overrides(config, variant))
        except ConfigError as error:
            yield from (f"{where}: {line.strip()}" for line in str(error).splitlines()[1:])
            continue
        same = next((other for other, theirs in seen.items() if is_same_experiment(made, theirs)), None)
        if same and not overridden:
            yield f"{where}: is the same training as {same}; change a value that {made.model.type} reads, or remove it"
        seen[name] = made


class Variants:
    """Configurations that differ from a valid one in a few values and have no grid or variants of their own.

    The cells of a grid share most of their sections. Each distinct section is validated once; the rules between the
    sections are checked for every variant. Variants with equal sections share one object, so that its YAML text is
    made once, too. For 10,000 cells with their texts this takes 6 s of CPU; one by one they take 33 s.
    """

    def __init__(self, config: Config, source: str) -> None:
        self._source = source
        # Without the axes: validating thousands of values again for each of thousands of variants takes minutes.
        self._content = {**config.to_dict(), "hparams": {}, "compare": {}}
        self._base: dict[str, Section] = {**dict(config), "hparams": Hparams(), "compare": Compare()}
        # (name of the section, its overrides as JSON) -> the validated section.
        self._changed: dict[tuple[str, str], Section] = {}

    def make(self, overrides: Mapping[str, Any]) -> Config:
        """The variant with `overrides` (key path -> plain value). Raises ConfigError as `make_config` does."""
        by_section: dict[str, dict[str, Any]] = {}
        for path, value in overrides.items():
            by_section.setdefault(path.partition(".")[0], {})[path] = value
        try:
            changed = {name: self._section(name, values) for name, values in by_section.items()}
            variant = Config.model_validate({**self._base, **changed})
        except (KeyError, ValidationError):
            # Validate all sections again, so that one error lists the problems of all of them.
            return make_config(self._content, self._source, overrides)
        problems = list(disagreements(variant))
        if problems:
            raise ConfigError(listed(problems, self._source))
        return variant

    def _section(self, name: str, values: Mapping[str, Any]) -> Section:
        key = (name, json.dumps(values))
        if key not in self._changed:
            content = json.loads(json.dumps({name: self._content[name]}))
            for path, value in values.items():
                set_key(content, path, value)
            self._changed[key] = type(self._base[name]).model_validate(as_tuples(content[name]))
        return self._changed[key]


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Read a YAML file and apply `overrides` such as "train.optimizer.lr=3e-4". Raises ConfigError."""
    parsed = dict(map(parse_override, overrides))
    content = yaml_file.read_mapping(Path(path))
    if SECTION in content:
        raise ConfigError(
            f"{path}: has a program, and this command is for experiments on images; programs have train, grid and "
            "compare"
        )
    config = make_config(content, str(path), parsed)
    if _names_own_code(config):
        root = absolute_below(Path(path).absolute().parent, config.project.path)
        config = config.model_copy(update={"project": config.project.model_copy(update={"path": str(root)})})
    if config.model.options and all(map(is_ours, networks_of(config))):
        raise ConfigError(
            f"{path}: model.options: {config.model.type} has its options beside model.type, not in model.options"
        )
    # Not in make_config: a variant may not fit, or be, the best cell of a grid, and no longer matters then.
    problems = list(_variant_problems(config, overridden=any(not name.startswith("compare.") for name in parsed)))
    if problems:
        raise ConfigError(listed(problems, str(path)))
    return config
