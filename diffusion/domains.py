"""What a picture can show of a scene: colours, distances or normals."""

from __future__ import annotations

from typing import Literal

Domain = Literal["color", "depth", "normals"]
DOMAINS: tuple[Domain, ...] = ("color", "depth", "normals")
