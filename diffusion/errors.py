"""What goes wrong with a backbone that a user can put right."""

from __future__ import annotations


class BackboneError(ValueError):
    """A backbone could not be found, read or used as asked; the message is one line that says what to do."""
