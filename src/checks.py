"""`python -m src.checks --config C`: checks the data and the model before any training, with numbers and pictures."""

from __future__ import annotations

import sys

from relay.cli import ConfigOption, SetOption, overrides_of, run_command
from relay.log import log

_EXAMPLES = 6


def main(config: ConfigOption = "", set_: SetOption = None) -> None:
    """Answer D1 to D11 and M0 to M2 of the report: data, split, preprocessing, augmentation, network, initial loss.

    Prints the answers; writes them as checks.json, and the figures, to artifacts/checks/.
    """
    from relay.config.yaml_file import json_text
    from relay.files import replace_file
    from src.artifacts import checks_folder
    from src.checking.figures import draw_class_counts, draw_examples
    from src.checking.sanity import measure
    from src.checking.text import lines_of
    from src.config.loading import load_config
    from src.data.found import with_found

    loaded = with_found(load_config(config, overrides_of(set_)))
    folder = checks_folder(loaded, config)
    log.info(f"reading {loaded.dataset.name}")
    report, examples = measure(loaded, _EXAMPLES)
    for line in lines_of(report):
        print(line)
    for verdict in report["verdicts"]:
        print(f"{'ok  ' if verdict['holds'] else 'FAIL'} {verdict['what']}")
    folder.mkdir(parents=True, exist_ok=True)
    figures = {"classes": "class_distribution.png", **({"examples": "examples.png"} if examples else {})}
    replace_file(folder / "checks.json", json_text({**report, "figures": figures}))
    drawn = [draw_class_counts(report["class_table"], folder / figures["classes"])]
    if examples:
        names = [each["name"] for each in report["examples"]]
        drawn.append(draw_examples(examples, names, folder / figures["examples"]))
    for path in filter(None, (folder / "checks.json", *drawn)):
        print(f"wrote {path}")
    # 1, as for a defect: the call was right, but the data or the model is not.
    if not all(verdict["holds"] for verdict in report["verdicts"]):
        sys.exit(1)


if __name__ == "__main__":
    run_command(main)
