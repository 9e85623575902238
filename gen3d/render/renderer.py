"""Which rasteriser finds the faces that a picture of a mesh shows.

The choice holds for a block of code, as the device of tensors does, so that no stage between a setting and a picture
has to hand it on. Textures are baked by Warp whatever it is: that is no picture.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from torch import Tensor

    from gen3d.render.raster_types import Raster

RendererName = Literal["warp", "pytorch3d", "reference"]

# Imported when they draw, so that to check a name costs nothing.
_MODULES: dict[RendererName, str] = {
    "warp": "gen3d.render.rasterize",
    "pytorch3d": "gen3d.render.rasterize_pytorch3d",
    "reference": "gen3d.render.rasterize_reference",
}
_current: ContextVar[RendererName] = ContextVar("renderer", default="warp")


def check_renderer(name: str) -> None:
    """ValueError for a renderer that there is not, or whose package is not installed."""
    if name not in _MODULES:
        raise ValueError(f"renderer is {name!r}; it must be one of {', '.join(get_args(RendererName))}")
    if name == "pytorch3d" and find_spec("pytorch3d") is None:
        raise ValueError(
            'renderer pytorch3d needs the package pytorch3d; pip install "galatea[pytorch3d]", or use warp'
        )


@contextmanager
def renderer(name: RendererName) -> Iterator[None]:
    """Pictures drawn within the block are drawn by this one."""
    check_renderer(name)
    before = _current.set(name)
    try:
        yield
    finally:
        _current.reset(before)


def rasterize(vertices_clip: Tensor, faces: Tensor, height: int, width: int) -> Raster:
    """`gen3d.render.rasterize.rasterize` by the renderer in force."""
    return importlib.import_module(_MODULES[_current.get()]).rasterize(vertices_clip, faces, height, width)
