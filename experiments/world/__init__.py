"""The procedural world: captions made solid, with geometry, colours and pictures known exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.world.scene import Scene, scene_from_caption

__all__ = ["Scene", "scene_from_caption"]


def __getattr__(name: str) -> Any:
    # Loaded when asked for, so that the settings of data sets can be read without torch.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from experiments.world import scene

    return getattr(scene, name)
