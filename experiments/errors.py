"""What the command line says when something goes wrong, and with which exit status.

A user's mistake is a `ValueError` or an `OSError` (the libraries raise the same): one line, status 2.
Anything else is our bug: one line, status 1, and how to see the traceback.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from files.atomic import NO_ROOM

if TYPE_CHECKING:
    from omegaconf import DictConfig

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130


class UserError(ValueError):
    """Something the user can mend; the message says what was got, what is allowed and what to do."""


class UnknownKey(UserError):
    """A composed config has a key that its component does not have.

    key: its full dotted name. node: the part of the config (OmegaConf's) that it stands in.
    """

    def __init__(self, key: str, node: DictConfig) -> None:
        super().__init__(f"unknown key {key!r}")
        self.key, self.node = key, node


class RunFailed(RuntimeError):
    """The run stopped for a reason that is neither bad input nor a bug (a diverged optimisation, say)."""


def debug() -> bool:
    """True when the user asked for tracebacks."""
    return os.environ.get("GALATEA_DEBUG", "") not in ("", "0")


def one_line(text: object, limit: int = 600) -> str:
    """`text` with all white space, line breaks included, folded to single spaces, and cut at `limit`."""
    folded = re.sub(r"\s+", " ", str(text)).strip()
    return folded if len(folded) <= limit else folded[: limit - 3] + "..."


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """' Did you mean x?' or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]}?" if close else ""


def describe(error: BaseException) -> tuple[str, int]:
    """The line to print for `error`, and the exit status it means."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        line = one_line(f"{error.filename}: {error.strerror}")
        helps = NO_ROOM.get(error.errno or 0)
        return f"{line}; {helps}, and the same command goes on" if helps else line, EXIT_USAGE
    # A JSON or unicode decoding error is a ValueError too, but is no sentence for a user on its own.
    if isinstance(error, (ValueError, OSError)):
        return one_line(error) or type(error).__name__, EXIT_USAGE
    if isinstance(error, RunFailed):
        return one_line(error), EXIT_FAILED
    message = f"internal error, {type(error).__name__}: {one_line(error)}"
    return f"{message} (please report it; GALATEA_DEBUG=1 shows the traceback)", EXIT_FAILED
