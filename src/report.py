"""`python -m src.report --config C`: the report of an experiment, filled in from its runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from relay.cli import ConfigOption, SetOption, overrides_of, run_command


def main(
    config: ConfigOption = "",
    language: Annotated[str, typer.Option("--lang", metavar="en|fr", help="The language of the report.")] = "en",
    out: Annotated[
        str | None, typer.Option("--out", metavar="DIR", help="Default: the folder report in paths.artifacts_dir.")
    ] = None,
    set_: SetOption = None,
) -> None:
    """Write the report as Markdown and as one HTML file: D1 to D11, M0 to M9, every number from the runs.

    What no run has measured yet is a gap with the command that fills it. What asks for your judgement has a draft,
    computed from the numbers and marked as one: in comments.yaml beside the report, `M4: ok` accepts that of M4, and
    your own words replace it. They are shown at their places and never overwritten.
    """
    from relay.errors import ConfigError
    from src.config.loading import load_config
    from src.reporting.compose import write_report
    from src.reporting.finding import with_known
    from src.reporting.texts import LANGUAGES

    if language not in LANGUAGES:
        raise ConfigError(
            f"--lang {language!r}: there is no report in this language; give one of {', '.join(LANGUAGES)}"
        )
    loaded = with_known(load_config(config, overrides_of(set_)))
    folder = Path(out) if out else Path(loaded.paths.artifacts_dir) / "report"
    written = write_report(loaded, config, language, folder)
    for path in written.files:
        print(f"wrote {path}")
    if written.gaps:
        print(f"not complete yet, see the gaps in: {', '.join(written.gaps)}")
    if written.drafts:
        print(f"drafts to accept or to replace in comments.yaml: {', '.join(written.drafts)}")


if __name__ == "__main__":
    run_command(main)
