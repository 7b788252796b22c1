"""`python -m src.lr_finder --config C`: runs the LR sweep in this process."""

from __future__ import annotations

from src.cli import ConfigOption, FreshOption, NewCodeOption, SetOption, overrides_of, run_command


def main(
    config: ConfigOption = "configs/config.yaml",
    set_: SetOption = None,
    fresh: FreshOption = False,
    new_code: NewCodeOption = False,
) -> None:
    """Increase the learning rate step by step and suggest one."""
    from src.config.loading import load_config
    from src.requests import lr_sweep_request

    loaded = load_config(config, overrides_of(set_))

    # torch takes seconds to import: only once the request is known to be valid.
    from src.outcome import show_outcome
    from src.results.table import read_table
    from src.results.table_files import print_table
    from src.runner import open_and_run
    from src.runs.rundir import SweepDir
    from src.training.publish import find_rate_and_export

    def show(sweep: SweepDir) -> None:
        print_table(read_table(sweep).ranked, sweep.name)
        show_outcome(sweep, loaded)

    open_and_run(lr_sweep_request(loaded), find_rate_and_export, show, fresh=fresh, new_code=new_code)


if __name__ == "__main__":
    run_command(main)
