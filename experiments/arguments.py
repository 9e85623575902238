"""The command line as typed, made into the command line Hydra understands.

Hydra gives commas, quotes, braces, `=` and `${...}` a meaning. In a prompt or a path they have none: what stands
behind `prompt=` or `out=` is text, taken exactly as the shell hands it over. All other arguments stay Hydra's.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field

from experiments.errors import UserError

# Keys whose value is literal text. A task that adds a free-text or path key adds it here.
TEXT_KEYS = frozenset({"prompt", "negative_prompt", "caption", "text"})
PATH_KEYS = frozenset({"out", "prompts", "clip", "model", "data_folder", "continue_from"})

_ASSIGNMENT = re.compile(r"(\+{0,2})([A-Za-z_][\w./@-]*)=(.*)", re.DOTALL)
_FLAGS_WITH_VALUE = frozenset(
    ("--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd",
     "--shell-completion", "-sc")
)  # fmt: skip
_SWEEP = re.compile(r"(choice|shuffle)\(.*\)", re.DOTALL)


@dataclass
class Arguments:
    """A parsed command line: `flags` and `overrides` are Hydra's, `values` the plain `key=value` pairs."""

    flags: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)
    multirun: bool = False
    config_dir: str | None = None

    def argv(self) -> list[str]:
        # argparse wants the positional arguments together; "--" keeps an optional flag value from eating one.
        return [*self.flags, "--", *self.overrides]


def quote(text: str) -> str:
    """`text` as a Hydra override value that means exactly `text`, in Hydra's grammar and in OmegaConf's."""
    if "${" in text:
        # OmegaConf: 2k+1 backslashes before "${" stand for k backslashes and a literal "${".
        text = re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + "\\${", text)
    # Hydra: inside quotes only a quote, and the backslashes just before one (or before the end), need escaping.
    text = re.sub(r"(\\*)'", lambda found: found[1] * 2 + "\\'", text)
    trailing = len(text) - len(text.rstrip("\\"))
    return f"'{text}{chr(92) * trailing}'"


def is_folder_like(value: str) -> bool:
    """True when a `backbone=` value is a path rather than the name of a config."""
    return value.startswith(("/", "./", "../", "~", ".")) or os.sep in value or os.path.isdir(value)


def parse(argv: list[str]) -> Arguments:
    """Sort `argv` into Hydra flags and overrides, with free text and paths made literal.

    In a multirun (`-m`), `prompt=choice("a red ball", "a blue cube")` sweeps; any other text is literal there too.
    """
    parsed = Arguments()
    rest = iter(argv)
    arguments: list[str] = []
    for argument in rest:
        if argument in _FLAGS_WITH_VALUE:
            value = next(rest, None)
            if value is None:
                raise UserError(f"{argument} needs a value")
            parsed.flags += [argument, value]
            if argument in ("--config-dir", "-cd"):
                parsed.config_dir = value
        elif argument.startswith("-"):
            parsed.flags.append("--info=all" if argument in ("--info", "-i") else argument)
            parsed.multirun |= argument in ("-m", "--multirun")
            if argument.startswith("--config-dir="):
                parsed.config_dir = argument.partition("=")[2]
        else:
            arguments.append(argument)
    previous = ""
    for argument in arguments:
        found = _ASSIGNMENT.fullmatch(argument)
        if found is None:
            if not argument.startswith("~"):
                raise UserError(_not_an_assignment(argument, previous))
            parsed.overrides.append(argument)
            continue
        plus, key, value = found.groups()
        previous = key
        parsed.values[key] = value
        parsed.overrides += _override(plus, key, value, parsed.multirun)
    return parsed


def _override(plus: str, key: str, value: str, multirun: bool) -> list[str]:
    if key in TEXT_KEYS or key in PATH_KEYS:
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise UserError(
                f"{key} is no valid UTF-8; check the encoding of your terminal or script"
            ) from None
        if multirun and _SWEEP.fullmatch(value):
            return [f"{plus}{key}={value}"]
        return [f"{plus}{key}={quote(value)}"]
    if key == "backbone" and is_folder_like(value):
        return ["backbone=folder", f"backbone.name={quote(os.path.expanduser(value))}"]
    return [f"{plus}{key}={value}"]


def _not_an_assignment(argument: str, previous: str) -> str:
    if previous in TEXT_KEYS | PATH_KEYS:
        return f'{argument!r} stands alone; a {previous} of several words needs quotes: {previous}="..."'
    return f"{argument!r} is no setting; settings are key=value, and 'galatea --help' shows them"
