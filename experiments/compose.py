"""From settings as typed at the command line to the `Config` of their experiment, for the command line and for tasks
that work with other experiments' settings."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from diffusion import registry
from experiments import arguments, catalog, components, messages
from experiments.errors import UserError, one_line
from experiments.run.settings import Settings


def settings(typed: Sequence[str]) -> Settings:
    """The `Config` that `galatea TYPED` would work with, such as `experiment=baseline/mvdream distillation=sds`.

    Raises:
        UserError, ValueError: as the command line would refuse it.
    """
    from hydra import compose, initialize_config_module
    from hydra.errors import HydraException

    from experiments import tasks
    from experiments.run.schema import build

    parsed = arguments.parse(list(typed))
    name, own = parsed.values["experiment"], components.own()
    task = catalog.task_of(name, own)
    overrides = parsed.overrides(register(task))
    if own:
        overrides.append(f"hydra.searchpath=[{arguments.quote(f'file://{own}')}]")
    with _no_application(), initialize_config_module("configs", version_base="1.3"):
        try:
            composed = compose("config", overrides=overrides)
        except HydraException as error:
            raise UserError(messages.of(error, typed) or one_line(error)) from error
    composed.experiment = name  # it refers to what Hydra knows in a run of its own alone
    return build(tasks.config(task), composed)


@contextlib.contextmanager
def _no_application() -> Iterator[None]:
    """Within it, Hydra has no application, of which there is one at a time: a run may itself be one's job."""
    from hydra.core.global_hydra import GlobalHydra

    before, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = before


def register(task: str) -> dict[str, bool]:
    """Put the schemas of a task and of its components, and the backbones, into Hydra's ConfigStore.

    Returns the task's literal keys.
    """
    from hydra.core.config_store import ConfigStore
    from omegaconf import MISSING

    from experiments import tasks
    from experiments.run.schema import groups_in, literal_keys, twin

    cls = tasks.config(task)
    node, store = twin(cls), ConfigStore.instance().store
    store(group="task", name=task, node=node(task=task), package="_global_", provider="galatea")
    for group in groups_in(cls):
        for name, component in components.classes(group).items():
            store(group=f"{group}/schema", name=name, node=twin(component), provider="galatea")
    for name in registry.names():
        store(group="backbone", name=name, node={"name": name}, provider="galatea")
    # Any folder: `backbone=/path/to/folder` chooses this and sets the name.
    store(group="backbone", name="folder", node={"name": MISSING}, provider="galatea")
    arguments.register_resolver()
    return literal_keys(cls)
