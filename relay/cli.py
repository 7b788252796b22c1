"""What all commands share: common options, one message per mistake, exit codes.

Exit codes: 0 done; 1 a defect; 2 a mistake that the user can fix; 130 stopped by Ctrl-C with the state saved.
"""

from __future__ import annotations

import errno
import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from relay import hints
from relay.console import clean_output
from relay.errors import ConfigError, RelayError
from relay.log import log, set_verbosity, start_log

# 128 + SIGINT, as shells report a process that Ctrl-C ended.
EXIT_STOPPED = 130
_Function = TypeVar("_Function", bound=Callable[..., Any])
ConfigOption = Annotated[
    str,
    typer.Option(
        "--config",
        metavar="FILE",
        show_default=False,
        help="The experiment's YAML file. Default: relay.yaml, or else configs/config.yaml.",
    ),
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override one value; may be repeated.")
]
FreshOption = Annotated[
    bool, typer.Option("--fresh", help="Start over beside the existing runs, instead of continuing them.")
]
NewCodeOption = Annotated[
    bool,
    typer.Option("--new-code", help="Continue with the current code instead of the code that the sweep was made with."),
]

_VERBOSE = typer.Option("--verbose", "-v", help="Log more, such as each SLURM command and its duration.")
_QUIET = typer.Option("--quiet", "-q", help="Show only results, warnings and errors, and not what the command does.")
# Errors of the system that the user can fix: full or read-only disk, permissions, a wrong path.
_FIXABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ENAMETOOLONG}


def _with_verbosity(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same command with --verbose and --quiet added to its options."""

    @functools.wraps(function)
    def command(*, verbose: bool, quiet: bool, **options: Any) -> Any:
        set_verbosity(verbose=verbose, quiet=quiet)
        if "config" in options:
            options["config"] = options["config"] or default_config()
            hints.typed(options["config"], options.get("set_") or (), options.get("cluster"))
        return function(**options)

    # typer reads the options of a command from its signature.
    signature = inspect.signature(function, eval_str=True)
    flags = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, option])
        for name, option in (("verbose", _VERBOSE), ("quiet", _QUIET))
    ]
    command.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *flags])  # type: ignore[attr-defined]
    return command


def default_config() -> str:
    """The configuration of the current folder: relay.yaml, or else configs/config.yaml. Raises ConfigError."""
    own, usual = Path("relay.yaml"), Path("configs/config.yaml")
    if not own.exists() and not usual.exists():
        raise ConfigError(
            f"{Path.cwd()}: has neither {own} nor {usual}; go to the folder of an experiment, give its file with "
            f"--config, or make a project: {hints.command('hpc.launch', 'new', 'my_project')}"
        )
    if own.exists() and usual.exists():
        log.info(f"the configuration is {own}; for the other one: --config {usual}")
    return str(own if own.exists() else usual)


class _App(typer.Typer):
    def command(self, *args: Any, **settings: Any) -> Callable[[_Function], _Function]:
        register = super().command(*args, **settings)

        def add(function: _Function) -> _Function:
            register(_with_verbosity(function))
            return function

        return add


def make_app(**settings: Any) -> typer.Typer:
    """An app that accepts options with dashes or underscores, and adds --verbose and --quiet to its commands."""
    return _App(
        add_completion=False,
        # A defect shows Python's own traceback, without the values of local variables.
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={
            # The report's commands write --max_epochs.
            "token_normalize_func": lambda name: name.replace("_", "-"),
            "help_option_names": ["-h", "--help"],
        },
        **settings,
    )


def run_command(function: Callable[..., Any]) -> None:
    """Run `function`, whose signature declares its options, as the program's only command."""
    app = make_app()
    app.command()(function)
    run_app(app)


def run_app(app: typer.Typer) -> None:
    """Run an app. A mistake that the user can fix prints one message on stderr and exits with 2."""
    clean_output()
    start_log()
    try:
        relay = hints.relay_command()
        app(prog_name=relay) if relay else app()
    except RelayError as error:
        _exit_with(str(error))
    except OSError as error:
        # Any other error of the system is a defect: its traceback is needed.
        if error.errno not in _FIXABLE:
            raise
        _exit_with(
            f"{error.filename or 'a file'}: {error.strerror}; free some space or fix the permissions, "
            "then run the same command again"
        )


def _exit_with(message: str) -> None:
    print(f"error: {message}", file=sys.stderr, flush=True)
    sys.exit(2)


def overrides_of(given: Sequence[str] | None, **options: Any) -> list[str]:
    """The values of `--set`, then the given options as overrides.

    The name of an option is a key path with `__` instead of dots. None and false mean that it was not given.
    """
    as_sets = [
        f"{name.replace('__', '.')}={_yaml(value)}"
        for name, value in options.items()
        if value is not None and value is not False
    ]
    return [*(given or []), *as_sets]


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
