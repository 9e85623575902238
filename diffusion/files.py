"""Tensors as safetensors files, which appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from files.atomic import atomic_path

if TYPE_CHECKING:
    from torch import Tensor


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors as safetensors, atomically. They may live anywhere; two must not share memory."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    own = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with atomic_path(path, need=sum(value.nbytes for value in own.values())) as temporary:
        try:
            save_file(own, temporary, metadata=None if metadata is None else dict(metadata))
        except SafetensorError as error:
            raise as_os_error(error) from error


def as_os_error(error: Exception) -> Exception:
    """The system's error that safetensors puts into words, 'I/O error: ... (os error 28)'; any other as it is."""
    _, found, number = str(error).rpartition("(os error ")
    if not found or not number.rstrip(")").isdigit():
        return error
    code = int(number.rstrip(")"))
    return OSError(code, os.strerror(code))
