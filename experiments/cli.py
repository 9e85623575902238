"""The console script `galatea`: an ordinary Hydra application with literal text arguments and short errors.

Nothing heavy is imported at the top: `galatea --help` reads a few small YAML files and prints.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import yaml

from experiments import arguments, catalog, components, compose, messages, overview
from experiments.errors import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    UserError,
    debug,
    describe,
    one_line,
)

if TYPE_CHECKING:
    from omegaconf import DictConfig

# What the user typed, for the line that says how to continue. Hydra hands a job its config only.
_typed: list[str] = []


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (without the program's name) and return its exit status."""
    typed = list(sys.argv[1:] if argv is None else argv)
    if "WORLD_SIZE" not in os.environ:
        return _command(typed)
    # `accelerate launch` or `torchrun` started several of us.
    from experiments.training import parallel

    if parallel.is_further_process():
        parallel.serve()
        return EXIT_OK
    status = _command(typed)
    if status == EXIT_OK:  # otherwise the launcher ends the others
        parallel.dismiss()
    return status


def _command(typed: list[str]) -> int:
    if typed == ["--version"]:
        from experiments.run.provenance import version

        print(f"galatea {version()}")
        return EXIT_OK
    try:
        with _one_line_warnings(), _terminate_like_interrupt():
            return _dispatch(typed)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else EXIT_OK
    except KeyboardInterrupt:
        print("\ngalatea: stopped", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception as error:
        return _report(error)


def _dispatch(typed: list[str]) -> int:
    wants_help = not typed or typed[0] == "help" or "--help" in typed or "-h" in typed
    rest = typed[1:] if typed[:1] == ["help"] else typed
    parsed = arguments.parse([each for each in rest if each not in ("--help", "-h")])
    _typed[:] = typed
    if wants_help and "experiment" not in parsed.values:
        with components.search(parsed.config_dir):
            print(overview.general(), end="")
        return EXIT_OK
    hydra_only = any(
        flag.startswith(("--hydra-help", "--version", "--shell-completion", "-sc")) for flag in parsed.flags
    )
    if hydra_only:
        return _run_hydra(parsed.argv({}))
    names = parsed.swept("experiment")
    if not names:
        listing = ", ".join(catalog.experiments(parsed.config_dir))
        raise UserError(f"no experiment chosen: give experiment=NAME. There are: {listing}")
    from experiments.run import caches

    catalog.refuse_hidden(parsed.config_dir)
    caches.prepare()
    with components.search(parsed.config_dir):
        try:
            _run_all(parsed, names, wants_help)
        except Exception as error:
            return _report(error)
    return EXIT_OK


def _run_all(parsed: arguments.Arguments, names: Sequence[str], wants_help: bool) -> None:
    tasks = [catalog.task_of(name, parsed.config_dir) for name in names]
    for name in names:
        catalog.refuse_budgets(name, parsed.swept("budget"), parsed.values, parsed.config_dir)
    _check_names(parsed)
    with contextlib.ExitStack() as stack:
        if parsed.multirun and not wants_help and not _launched_elsewhere(parsed, names):
            stack.enter_context(_sweep_folder())
        # Hydra cannot sweep over experiments, which differ in the keys they have.
        for name, task in zip(names, tasks, strict=True):
            literal = compose.register(task)
            if wants_help:
                _print_help(name, task, parsed, literal)
            else:
                _run_experiment(parsed.choosing("experiment", name), literal)


def _print_help(name: str, task: str, parsed: arguments.Arguments, literal: dict[str, bool]) -> None:
    """What there is to choose and to set in one experiment, with what was chosen and set beside `--help`."""
    from experiments import tasks

    chosen = parsed.choosing("experiment", name)
    settings = [f"experiment={name}"] if parsed.multirun else chosen.settings
    config, choices = _compose(chosen.alone(settings), literal)
    print(overview.of_experiment(tasks.config(task), config, choices), end="")


def _run_experiment(parsed: arguments.Arguments, literal: dict[str, bool]) -> None:
    try:
        _run_hydra(parsed.argv(literal))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        catalog.refuse_unreadable(parsed.config_dir, error)
        raise
    except Exception as error:
        _refuse_choices(parsed, error)
        raise


def _refuse_choices(parsed: arguments.Arguments, error: Exception) -> None:
    """UserError when `error` comes of a choice that the experiment does not have, or of a setting of one not made."""
    unmatched = messages.unmatched_choice(error)
    if unmatched is None and not messages.is_about_none(error):
        return
    experiment = f"experiment={parsed.values['experiment']}"
    recipes = [] if unmatched == components.RECIPE else parsed.swept(components.RECIPE)
    for settings in [[experiment, f"recipe={name}"] for name in recipes] or [[experiment]]:
        config, choices = _compose(parsed.alone(settings), {})
        if unmatched and unmatched not in choices:
            raise UserError(messages.no_such_choice(unmatched, choices)) from error
        for key in parsed.values:
            empty = messages.empty_above(key, config)
            if empty:
                raise UserError(messages.nothing_there(key, empty, choices)) from error


def _compose(parsed: arguments.Arguments, literal: dict[str, bool]) -> tuple[DictConfig, dict[str, str]]:
    """The composed config of one experiment, and what was chosen in it: what stands before `=` -> name."""
    from hydra.core.hydra_config import HydraConfig

    found: list[tuple[DictConfig, dict[str, str]]] = []

    def keep(composed: DictConfig) -> None:
        composed.experiment = str(composed.experiment)  # it refers to what Hydra knows in here alone
        found.append((composed, components.offered(HydraConfig.get().runtime.choices)))

    _run_hydra(parsed.argv(literal), keep)
    return found[0]


def _check_names(parsed: arguments.Arguments) -> None:
    """UserError for a name that its group does not have."""
    for key in parsed.values:
        group = key.partition("@")[0]
        if key == "backbone":
            _check_backbone(parsed)
        elif group in components.groups():
            for name in parsed.swept(key):
                error = components.unknown_name(group, name)
                if error and not name.startswith(("{", "glob(")):
                    raise error


def _check_backbone(parsed: arguments.Arguments) -> None:
    name = parsed.values["backbone"]
    if arguments.is_folder_like(name) or parsed.multirun:
        return
    known = catalog.backbones(parsed.config_dir)
    if name not in known:
        raise UserError(f"unknown backbone {name!r}; it must be one of {', '.join(known)}, or a folder")


def _launched_elsewhere(parsed: arguments.Arguments, names: Sequence[str]) -> bool:
    """Whether a sweep's runs are started by a launcher that may keep files of its own, such as a cluster's."""
    group = "hydra/launcher"
    return group in parsed.values or any(catalog.chooses(name, group, parsed.config_dir) for name in names)


@contextlib.contextmanager
def _sweep_folder() -> Iterator[None]:
    """A folder for the one file that Hydra writes about every sweep, which is removed: our runs keep their own."""
    with tempfile.TemporaryDirectory(prefix="galatea-") as folder, _environment("GALATEA_SWEEP_DIR", folder):
        yield


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _run_hydra(argv: Sequence[str], job: Callable[[DictConfig], None] | None = None) -> int:
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    application = hydra.main(config_path="pkg://configs", config_name="config", version_base="1.3")(
        job or _job
    )
    before = sys.argv
    sys.argv = ["galatea", *argv]
    try:
        # Hydra would print its own several lines and exit with 1; this makes it raise instead.
        with _environment("HYDRA_FULL_ERROR", "1"):
            application()
    finally:
        sys.argv = before
        GlobalHydra.instance().clear()
    return EXIT_OK


def _job(composed: DictConfig) -> None:
    """One composed config: check it, open its run folder, do the task. A failure ends the program (and a sweep)."""
    from hydra.core.hydra_config import HydraConfig

    from experiments import tasks
    from experiments.run.schema import build

    try:
        arguments.register_resolver()  # a launcher's process may begin here
        config = build(tasks.config(composed.task), composed)
        # Only now, for torch and the models take seconds to load, and wrong settings are known before.
        module = tasks.load(composed.task)
        from experiments.run.execute import execute

        mode = HydraConfig.get().mode
        many = mode is not None and mode.name == "MULTIRUN"
        status = execute(module, config, typed=_typed, one_of_many=many)
    except Exception as error:
        status = _report(error)
    if status:
        # Any other exception, and Hydra would add lines of its own.
        raise SystemExit(status)


def _report(error: BaseException) -> int:
    """Print one line for `error` (and the traceback when asked) and return the exit status."""
    line = messages.of(error, _typed)
    message, status = (line, EXIT_USAGE) if line else describe(error)
    if debug():
        traceback.print_exception(error)
    print(f"galatea: {message}", file=sys.stderr)
    return status


@contextlib.contextmanager
def _one_line_warnings() -> Iterator[None]:
    """Our own warnings as one line on stderr; other libraries' as Python shows them."""

    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any) -> None:
        place = "" if issubclass(category, UserWarning) and _is_ours(filename) else f" ({filename}:{lineno})"
        print(f"galatea: warning: {one_line(message)}{place}", file=sys.stderr)

    before = warnings.showwarning
    warnings.showwarning = show  # type: ignore[assignment]
    try:
        yield
    finally:
        warnings.showwarning = before


def _is_ours(filename: str) -> bool:
    return filename.startswith(str(catalog.CONFIG_ROOT.parent))


@contextlib.contextmanager
def _terminate_like_interrupt() -> Iterator[None]:
    """SIGTERM (a scheduler's, a container's) stops a run the way Ctrl-C does."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread: signals are not ours to set
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
