"""The console script `galatea`: an ordinary Hydra application with literal text arguments and short errors.

Nothing heavy is imported at the top: `galatea --help` reads a few small YAML files and prints.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import yaml

from diffusion import registry
from experiments import arguments, catalog
from experiments.errors import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    UnknownKey,
    UserError,
    debug,
    describe,
    did_you_mean,
    one_line,
)

if TYPE_CHECKING:
    from omegaconf import DictConfig

HELP = """\
Galatea turns words into a 3D figure.

    galatea experiment=FAMILY/NAME key=value ...

Experiments
{experiments}

Keys every experiment has
  out=DIR          run folder; without it outputs/<task>/<date>-<hash>. The same command continues a stopped run
  budget=NAME      {budgets} (how much work; default cpu; text_to_3d has those in seconds)
  backbone=NAME    {backbones}, or a folder in diffusers layout
  seed=N           same seed, same machine: the same bytes
  device=cuda      cpu unless you say otherwise
  overwrite=true   begin again in a folder that holds a finished or another run

Text and paths (prompt=, out=, portrait=, ...) are taken as typed: quote them for your shell and nothing else. With -m,
choice(a,b) sweeps over texts; one with a comma stands in "..." or '...', where \\" is a quote.

Examples
  galatea experiment=text_to_3d/quickstart prompt="a red mushroom" out=out/mushroom
  galatea experiment=sample/multiview prompt="a blue cone on a yellow cube" budget=smoke
  galatea experiment=text_to_3d/quickstart prompt="a red mushroom" --cfg job     show every setting, run nothing
  galatea -m experiment=text_to_3d/quickstart prompt="a green duck" seed=0,1,2   one run per seed
  galatea -m experiment=text_to_3d/quickstart 'prompt=choice("a red car","a blue car")'

Hydra's own flags work too (--hydra-help). GALATEA_DEBUG=1 shows tracebacks.
"""

# What the user typed, for the line that says how to continue. Hydra hands a job its config only.
_typed: list[str] = []


def help_text() -> str:
    """The text of `galatea --help`."""
    known = catalog.experiments()
    width = max(map(len, known), default=0)
    listing = "\n".join(f"  {name:<{width}}  {catalog.description(path)}" for name, path in known.items())
    backbones = ", ".join(catalog.backbones())
    order = ["smoke", "10s", "30s", "cpu", "120s", "gpu"]
    budgets = sorted(catalog.options("budget"), key=lambda name: order.index(name) if name in order else 9)
    return HELP.format(experiments=listing, budgets=", ".join(budgets), backbones=backbones)


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
    if not typed or typed[0] in ("help", "-h", "--help") or "--help" in typed or "-h" in typed:
        print(help_text(), end="")
        return EXIT_OK
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
    from experiments.run import caches

    parsed = arguments.parse(typed)
    _typed[:] = typed
    hydra_only = any(
        flag.startswith(("--hydra-help", "--version", "--shell-completion", "-sc")) for flag in parsed.flags
    )
    if hydra_only:
        return _run_hydra(parsed.argv({}))
    names = parsed.swept("experiment")
    if not names:
        listing = ", ".join(catalog.experiments(parsed.config_dir))
        raise UserError(f"no experiment chosen: give experiment=NAME. There are: {listing}")
    tasks = [catalog.task_of(name, parsed.config_dir) for name in names]
    for name in names:
        catalog.refuse_budgets(name, parsed.swept("budget"), parsed.values, parsed.config_dir)
    _check_backbone(parsed)
    caches.prepare()
    with contextlib.ExitStack() as stack:
        if parsed.multirun and not _launched_elsewhere(parsed, names):
            stack.enter_context(_sweep_folder())
        # Hydra cannot sweep over experiments, which differ in the keys they have.
        for name, task in zip(names, tasks, strict=True):
            _run_experiment(parsed.choosing("experiment", name), _register(task))
    return EXIT_OK


def _run_experiment(parsed: arguments.Arguments, literal: dict[str, bool]) -> None:
    try:
        _run_hydra(parsed.argv(literal))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        catalog.refuse_unreadable(parsed.config_dir, error)
        raise


def _check_backbone(parsed: arguments.Arguments) -> None:
    name = parsed.values.get("backbone")
    if name is None or arguments.is_folder_like(name) or parsed.multirun:
        return
    known = catalog.backbones(parsed.config_dir)
    if name not in known:
        raise UserError(f"unknown backbone {name!r}; it must be one of {', '.join(known)}, or a folder")


def _register(task: str) -> dict[str, bool]:
    """Put a task's schema, and the registered backbones, into Hydra's ConfigStore; returns the task's literal keys."""
    from hydra.core.config_store import ConfigStore
    from omegaconf import MISSING

    from experiments import tasks
    from experiments.run.schema import literal_keys, twin

    cls = tasks.config(task)
    node, store = twin(cls), ConfigStore.instance().store
    store(group="task", name=task, node=node(task=task), package="_global_", provider="galatea")
    for name in registry.names():
        store(group="backbone", name=name, node={"name": name}, provider="galatea")
    # Any folder: `backbone=/path/to/folder` chooses this and sets the name.
    store(group="backbone", name="folder", node={"name": MISSING}, provider="galatea")
    arguments.register_resolver()
    return literal_keys(cls)


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


def _run_hydra(argv: Sequence[str]) -> int:
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    application = hydra.main(config_path="pkg://configs", config_name="config", version_base="1.3")(_job)
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
    line = f"{error}.{_similar_keys(error.key)}" if isinstance(error, UnknownKey) else _hydra_message(error)
    message, status = (line, EXIT_USAGE) if line else describe(error)
    if debug():
        traceback.print_exception(error)
    print(f"galatea: {message}", file=sys.stderr)
    return status


def _hydra_message(error: BaseException) -> str | None:
    """One line for what Hydra and OmegaConf raise while composing; None for any other error."""
    too_large = re.search(r"\n\s*full_key: (\S+)", str(error)) if isinstance(error, OverflowError) else None
    if too_large:
        return f"{too_large[1]}: no computation can hold a number that large"
    module = type(error).__module__
    if not module.startswith(("hydra", "omegaconf")):
        return None
    from omegaconf.errors import OmegaConfBaseException

    cause: Any = error
    while cause is not None and not isinstance(cause, OmegaConfBaseException):
        cause = cause.__cause__
    if cause is None:
        return _composition_message(error)
    key, text = cause.full_key, one_line(str(cause.msg or cause).splitlines()[0])
    if "is not in struct" in str(cause) or "not in '" in str(cause):
        return f"unknown key {key!r}.{_similar_keys(key)}"
    return _list_message(key) or (f"{key}: {text}" if key else text)


def _list_message(key: str | None) -> str | None:
    """What to say of a setting that must be a list and is not, or of one of its values; None for all others."""
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    from experiments.run.schema import class_of, list_form

    name = (key or "").partition("[")[0]
    nodes = ConfigStore.instance().repo.get("task", {}).values()
    forms = (list_form(class_of(OmegaConf.get_type(node.node)), name) for node in nodes)
    form = next((form for form in forms if form), None)
    if form is None:
        return None
    typed = next((each.partition("=")[2] for each in _typed if each.lstrip("+").startswith(f"{name}=")), None)
    return f"{name} must be {form}" + (f", got {typed!r}" if typed is not None else "")


def _composition_message(error: BaseException) -> str:
    """One line for a config or an override that Hydra could not make sense of."""
    text = str(error).partition("Config search path")[0]
    missing = re.search(
        r"Could not find '([\w/]+)/([^'/]*)'\s+Available options in '[^']*':\s(.*)", text, re.DOTALL
    )
    if missing:
        group, name, known = missing[1], missing[2], missing[3].split()
        return f"unknown {group} {name!r}.{did_you_mean(name, known)} There are: {', '.join(known)}"
    override = getattr(error, "override", None)
    if override:
        reason = text.splitlines()[0]
        key, _, value = str(override).partition("=")
        hint = f"; text inside a list needs quotes: {key}=\"['...']\"" if value.startswith("[") else ""
        return f"{override!r} cannot be read as a setting: {one_line(reason)}{hint}"
    return one_line(text)


def _similar_keys(key: str | None) -> str:
    """The nearest known key, or the keys of the same level."""
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    from experiments.run.settings import flatten

    known: set[str] = set()
    for node in ConfigStore.instance().repo.get("task", {}).values():
        known |= flatten(OmegaConf.to_container(node.node)).keys()  # type: ignore[arg-type]
    parent = (key or "").rpartition(".")[0]
    siblings = sorted(
        {name.removeprefix(f"{parent}.").split(".")[0] for name in known if name.startswith(parent)}
    )
    listing = f" Keys{' of ' + parent if parent else ''}: {', '.join(siblings)}" if siblings else ""
    return did_you_mean(key or "", known) + listing


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
