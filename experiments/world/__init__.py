"""The procedural world: captions made solid, with geometry, colours and pictures known exactly."""

from experiments.world.scene import Scene, scene_from_caption

__all__ = ["Scene", "scene_from_caption"]
