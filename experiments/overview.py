"""What `galatea --help` and `galatea experiment=NAME --help` print. Neither imports torch, the first not even Hydra."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from experiments import catalog, components
from experiments.errors import one_line

if TYPE_CHECKING:
    from omegaconf import DictConfig

HELP = """\
Galatea turns words into a 3D figure.

    galatea experiment=FAMILY/NAME key=value ...

Experiments
{experiments}
{groups}
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
  galatea experiment=text_to_3d/quickstart --help                                all of it that can be chosen and set
  galatea experiment=text_to_3d/quickstart prompt="a red mushroom" out=out/mushroom
  galatea experiment=sample/multiview prompt="a blue cone on a yellow cube" budget=smoke
  galatea experiment=text_to_3d/quickstart prompt="a red mushroom" --cfg job     show every setting, run nothing
  galatea -m experiment=text_to_3d/quickstart prompt="a green duck" seed=0,1,2   one run per seed
  galatea -m experiment=text_to_3d/quickstart 'prompt=choice("a red car","a blue car")'

Hydra's own flags work too (--hydra-help). GALATEA_DEBUG=1 shows tracebacks.
"""
_GROUPS = "\nChosen by name, where an experiment has them (experiment=NAME --help shows which)\n{listing}\n"
_BUDGETS = ("smoke", "10s", "30s", "cpu", "120s", "gpu")
_LABELS = ("task", "experiment", "budget")


def general() -> str:
    """The text of `galatea --help`."""
    config_dir = components.own()
    known = catalog.experiments(config_dir)
    listing = _columns({name: catalog.description(path) for name, path in known.items()})
    names = {f"{group}=NAME": ", ".join(components.names(group)) for group in components.groups()}
    return HELP.format(
        experiments=listing,
        groups=_GROUPS.format(listing=_columns(names)) if names else "",
        budgets=", ".join(_in_order(catalog.options("budget", config_dir))),
        backbones=", ".join(catalog.backbones(config_dir)),
    )


def of_experiment(cls: type, composed: DictConfig, choices: Mapping[str, str]) -> str:
    """The text of `galatea experiment=NAME --help`.

    cls: the task's `Config`. composed: the experiment with what was chosen and set on the command line. choices: what
    can be chosen -> the chosen name (`components.offered`).
    """
    name = str(composed.experiment)
    parts = [f"{name}: {catalog.description(catalog.experiments(components.own())[name])}"]
    for group in (components.RECIPE, *components.GROUPS):
        keys = [key for key in choices if key.partition("@")[0] == group]
        if keys:
            heading = "  ".join(f"{key}={choices[key]}" for key in keys)
            parts.append(f"{heading}\n{_columns(components.names(group), '    ')}")
    for group, known in (
        ("budget", _in_order(catalog.budgets(name, choices, components.own()))),
        ("backbone", catalog.backbones(components.own())),
    ):
        if group in choices:
            parts.append(f"{group}={choices[group]}\n    {', '.join(known)}")
    parts += _stages(cls, composed, choices)
    lines = "\n".join(f"  {key}={value}" for key, value in _settings(composed) if key not in _LABELS)
    parts.append(f"Settings, ??? where one must be given\n{lines}")
    return "\n\n".join(parts) + "\n"


def _stages(cls: type, composed: DictConfig, choices: Mapping[str, str]) -> Iterator[str]:
    """For every setting that is a row of components, such as a recipe: their names in order, and what each is."""
    from omegaconf import OmegaConf

    from experiments.run.schema import rows_in

    for key, group in rows_in(cls).items():
        known, rows = components.names(group), {}
        row = {} if OmegaConf.is_missing(composed, key) else composed[key] or {}
        for number, (name, node) in enumerate(row.items(), 1):
            what = choices.get(f"{group}@{key}.{name}", node.name)
            rows[f"{number} {name}"] = ("" if what == name else f"{what}: ") + known.get(what, "")
        if rows:
            yield f"{key}, one after the other\n{_columns(rows)}"


def _settings(config: DictConfig, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted key and value of every setting, as they are typed on a command line."""
    from omegaconf import OmegaConf

    from experiments.run.schema import class_of

    plain: Any = OmegaConf.to_container(config, resolve=False)
    is_component = components.name_of(class_of(OmegaConf.get_type(config))) is not None
    for key, value in plain.items():
        if isinstance(value, dict):
            yield from _settings(config[key], f"{prefix}{key}.")
        elif not (is_component and key == "name"):
            yield f"{prefix}{key}", _value(value)


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_value, value))}]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return one_line(value)


def _in_order(budgets: list[str]) -> list[str]:
    """From the least work to the most."""
    return sorted(budgets, key=lambda name: _BUDGETS.index(name) if name in _BUDGETS else len(_BUDGETS))


def _columns(rows: Mapping[str, str], indent: str = "  ") -> str:
    width = max(map(len, rows), default=0)
    return "\n".join(f"{indent}{name:<{width}}  {text}".rstrip() for name, text in rows.items())
