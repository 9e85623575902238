r"""The command line as typed, made into the command line Hydra understands.

Hydra gives commas, quotes, braces, `=` and `${...}` a meaning. In a prompt or a path they have none: what stands
behind `prompt=` or `out=` is text, taken exactly as the shell hands it over. Which keys these are, the chosen task's
`Config` says by the types of its fields (`experiments.run.settings.Text`). All other arguments stay Hydra's.

Of text there are lists in two places: in a sweep, `-m 'prompt=choice("a wizard's hat",a cat)'` (or `shuffle(...)`),
and behind keys that hold several texts, `key=[one,"two, three"]`. An element stands as it is, without the white space
around it, or in quotes, which it needs for a comma, for white space at its ends, or to be empty:

    "a, b"   'a, b'    what is between the quotes, every character for itself, but
    "a \"b\""          a backslash before such a quote keeps the quote (of the other kind it needs none: 'a "b"'), and
    "a\\"              just before a quote, two backslashes are one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from experiments.errors import UserError
from experiments.run.files import expand_home

_ASSIGNMENT = re.compile(r"(\+{0,2})([A-Za-z_][\w./@-]*)=(.*)", re.DOTALL)
_CONFIG_DIR = ("--config-dir", "-cd")
_FLAGS_WITH_VALUE = frozenset(
    ("--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", *_CONFIG_DIR,
     "--shell-completion", "-sc")
)  # fmt: skip
_SWEEP = re.compile(r"\s*(choice|shuffle)\s*\((.*)\)\s*", re.DOTALL)
_QUOTED = re.compile(r"""(['"])((?:\\.|(?!\1)[^\\])*)\1\s*(,|\Z)""", re.DOTALL)

_RESOLVER = "galatea_text"


@dataclass
class Arguments:
    """A parsed command line: `flags` are Hydra's, `settings` as typed, `values` the plain `key=value` pairs.

    config_dir: the user's own tree of configs, an existing folder, or None.
    """

    flags: list[str] = field(default_factory=list)
    settings: list[str] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)
    multirun: bool = False
    config_dir: str | None = None

    def overrides(self, literal: Mapping[str, bool]) -> list[str]:
        """The settings for Hydra, with text and paths made literal.

        Args:
            literal: the keys that hold text or paths (`experiments.run.schema.literal_keys`), and whether a key holds
                a list of them; `*` in a key stands for any one part of it.

        Raises:
            UserError: a text is no UTF-8, or a list of texts cannot be read.
        """
        made: list[str] = []
        for setting in self.settings:
            found = _ASSIGNMENT.fullmatch(setting)
            made += _override(found, literal, self.multirun) if found else [setting]
        return made

    def argv(self, literal: Mapping[str, bool]) -> list[str]:
        """The whole command line for Hydra."""
        # argparse wants the positional arguments together; "--" keeps an optional flag value from eating one.
        return [*self.flags, "--", *self.overrides(literal)]

    def alone(self, settings: list[str]) -> Arguments:
        """Other settings for a single run, with no flag but the folder of configs."""
        flags = [_CONFIG_DIR[0], self.config_dir] if self.config_dir else []
        return Arguments(flags=flags, settings=settings, config_dir=self.config_dir)

    def choosing(self, key: str, name: str) -> Arguments:
        """The same with `name` in place of what was typed for `key`."""
        chosen = [f"{key}={name}" if each.startswith(f"{key}=") else each for each in self.settings]
        return replace(self, settings=chosen, values={**self.values, key: name})

    def swept(self, key: str) -> list[str]:
        """What a sweep takes for `key`, one of Hydra's names: one value, `a,b`, or `choice(a,b)`. Empty without it."""
        value = self.values.get(key)
        if not value:
            return []
        if not self.multirun:
            return [value]
        return _sweep(key, value)[1] or [name.strip() for name in value.split(",")]


def quote(text: str) -> str:
    """`text` as a Hydra override value that means exactly `text`, in Hydra's grammar and in OmegaConf's."""
    if "${" in text:
        # OmegaConf: 2k+1 backslashes before "${" stand for k backslashes and a literal "${".
        text = re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + "\\${", text)
    # Hydra: inside quotes only a quote, and the backslashes just before one (or before the end), need escaping.
    text = re.sub(r"(\\*)'", lambda found: found[1] * 2 + "\\'", text)
    trailing = len(text) - len(text.rstrip("\\"))
    return f"'{text}{chr(92) * trailing}'"


def quote_in_sweep(text: str) -> str:
    """`text` as an element of a Hydra sweep that means exactly `text` (see `register_resolver`).

    Hydra's sweepers take an element's quotes off and parse it a second time, when nothing can quote it any more. Of
    what passes both, only an interpolation can say any text: one that spells it out in hexadecimal digits.
    """
    return f"${{{_RESOLVER}:x{text.encode('utf-8').hex()}}}"


def register_resolver() -> None:
    """Teach OmegaConf, in this process, to read what `quote_in_sweep` wrote."""
    from omegaconf import OmegaConf

    if not OmegaConf.has_resolver(_RESOLVER):
        OmegaConf.register_new_resolver(_RESOLVER, lambda spelled: bytes.fromhex(spelled[1:]).decode("utf-8"))


def is_folder_like(value: str) -> bool:
    """True when a `backbone=` value is a path rather than the name of a config."""
    return value.startswith(("/", "./", "../", "~", ".")) or os.sep in value or os.path.isdir(value)


def parse(argv: list[str]) -> Arguments:
    """Sort `argv` into Hydra's flags and settings.

    Raises:
        UserError: an argument is neither, a flag lacks its value, or the folder of `--config-dir` is not there.
    """
    parsed = Arguments()
    rest = iter(argv)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if argument in _FLAGS_WITH_VALUE:
            following = next(rest, None)
            if following is None:
                raise UserError(f"{argument} needs a value")
            name, equals, value = argument, "=", following
        if name in _CONFIG_DIR and equals:
            parsed.config_dir = _existing_folder(value)
            parsed.flags += [_CONFIG_DIR[0], parsed.config_dir]
        elif argument in _FLAGS_WITH_VALUE:
            parsed.flags += [argument, value]
        elif argument.startswith("-"):
            parsed.flags.append("--info=all" if argument in ("--info", "-i") else argument)
            parsed.multirun |= argument in ("-m", "--multirun")
        else:
            parsed.settings.append(argument)
    _check_settings(parsed)
    return parsed


def _existing_folder(typed: str) -> str:
    folder = expand_home(typed, "--config-dir")
    if not os.path.isdir(folder):
        raise UserError(
            f"--config-dir is {typed!r}, and there is no such folder; it must be one that holds configs"
        )
    return folder


def _check_settings(parsed: Arguments) -> None:
    previous = ""
    for setting in parsed.settings:
        found = _ASSIGNMENT.fullmatch(setting)
        if found is not None:
            previous = found[2]
            parsed.values[previous] = found[3]
        elif setting.startswith("~"):
            # A group of Hydra's own can be left out; a setting of ours always has a value.
            if not setting.startswith("~hydra"):
                raise UserError(
                    f"{setting!r}: settings cannot be deleted; give another value: {setting[1:]}=..."
                )
        elif previous:
            raise UserError(
                f'{setting!r} stands alone; if it belongs to {previous}, quote the whole: {previous}="..."'
            )
        else:
            raise UserError(
                f"{setting!r} is no setting; settings are key=value, and 'galatea --help' shows them"
            )


def _override(found: re.Match[str], literal: Mapping[str, bool], multirun: bool) -> list[str]:
    plus, key, value = found.groups()
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"{key} is no valid UTF-8; check the encoding of your terminal or script") from None
    if key == "backbone" and not plus:
        return _backbone(value, multirun)
    listed_key = _lists(key, literal)
    if listed_key is None:
        return [f"{plus}{key}={value}"]
    function, texts = _sweep(key, value) if multirun and not listed_key else ("", [])
    if texts:
        return [f"{plus}{key}={_swept(function, texts)}"]
    if not listed_key:
        return [f"{plus}{key}={quote(value)}"]
    listed = re.fullmatch(r"\s*\[(.*)\]\s*", value, re.DOTALL)
    if listed is None:
        if multirun and _SWEEP.fullmatch(value):
            return [f"{plus}{key}={value}"]
        raise UserError(f"{key} is {value!r}; it must be a list: {key}='[one,\"two, three\"]'")
    texts = _elements(key, listed[1]) if listed[1].strip() else []
    return [f"{plus}{key}=[{','.join(map(quote, texts))}]"]


def _lists(key: str, literal: Mapping[str, bool]) -> bool | None:
    """Whether a key holds a list of texts; None for one that holds no text."""
    if key in literal:
        return literal[key]
    parts = key.split(".")
    for known, listed in literal.items():
        pattern = known.split(".")
        if len(pattern) == len(parts) and all(a in ("*", b) for a, b in zip(pattern, parts, strict=True)):
            return listed
    return None


def _backbone(value: str, multirun: bool) -> list[str]:
    """A folder is the value of a key, a name chooses a config; a sweep over both goes by the key."""
    function, names = _sweep("backbone", value) if multirun else ("", [])
    if any(map(is_folder_like, names)):
        return ["backbone=folder", f"backbone.name={_swept(function, names)}"]
    if not names and is_folder_like(value):
        return ["backbone=folder", f"backbone.name={quote(value)}"]
    return [f"backbone={value}"]


def _swept(function: str, texts: list[str]) -> str:
    # Hydra's shuffle takes a single value for a list to be shuffled.
    function = "choice" if len(texts) == 1 else function
    return f"{function}({','.join(map(quote_in_sweep, texts))})"


def _sweep(key: str, value: str) -> tuple[str, list[str]]:
    """The function of a sweep and its elements; nothing for a value that is no sweep."""
    found = _SWEEP.fullmatch(value)
    if found is None:
        return "", []
    function, listed = found.groups()
    inner = _SWEEP.fullmatch(listed)
    return function, _elements(key, inner[2] if inner else listed)


def _elements(key: str, listed: str) -> list[str]:
    """The texts of a list as typed; the module's docstring says how they are written."""
    texts: list[str] = []
    comma = ","
    while comma:
        listed = listed.lstrip()
        if listed.startswith(("'", '"')):
            found = _QUOTED.match(listed)
            if found is None:
                raise UserError(
                    f"{key}: the quote before {listed[1:31]!r} has no other to close it, or more than a comma follows "
                    f'that; in "..." write \\" for a quote, and other quotes around a text that begins with one'
                )
            mark, text, comma = found.groups()
            texts.append(re.sub(rf"(\\+)({mark}|\Z)", lambda run: run[1][: len(run[1]) // 2] + run[2], text))
            listed = listed[found.end() :]
        else:
            text, comma, listed = listed.partition(",")
            if not text.strip():
                raise UserError(f'{key}: an element of the list is empty; write "" for an empty text')
            texts.append(text.strip())
    return texts
