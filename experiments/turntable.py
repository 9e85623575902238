"""Pictures and the video of a finished mesh: preview.png, views.png, turntable.mp4 (colour beside normals)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from experiments.run.images import grid, save_png
from experiments.tasks.configs.turntable import TurntableConfig
from gen3d.asset import Mesh
from gen3d.cameras import orbit, ring
from gen3d.render.shading import render_mesh
from video.compose import side_by_side
from video.encode import encode

_WHITE = (1.0, 1.0, 1.0)
# Frames rendered at a time: bounds the memory, changes no pixel.
_CHUNK = 8


def turn(mesh: Mesh, config: TurntableConfig) -> torch.Tensor:
    """Frames [F, 3, size, 2 size] of the mesh turning once before the camera: shaded colour, and normals."""
    cameras = ring(config.num_frames, elevation_deg=config.elevation_deg)
    frames = []
    with torch.no_grad():
        for start in range(0, config.num_frames, _CHUNK):
            some = cameras[slice(start, start + _CHUNK)]
            pictures = [
                render_mesh(
                    mesh, some, config.size, config.size, background=_WHITE, supersample=2, mode=mode
                ).images
                for mode in ("shaded", "normal")
            ]
            frames.append(side_by_side([picture.cpu() for picture in pictures]))
    return torch.cat(frames)


def write_turntable(mesh: Mesh, path: Path, config: TurntableConfig, metadata: Mapping[str, str]) -> None:
    """Render the turn and write it as MP4."""
    encode(turn(mesh, config), path, config=config.video, metadata=metadata)


def write_preview(mesh: Mesh, path: Path, config: TurntableConfig) -> None:
    """One large picture, from a little to the side."""
    with torch.no_grad():
        camera = orbit(30.0, 20.0, fovy_deg=35.0)
        size = config.preview_size
        save_png(render_mesh(mesh, camera, size, size, background=_WHITE, supersample=2).images[0], path)


def write_views(mesh: Mesh, path: Path, config: TurntableConfig) -> torch.Tensor:
    """Four sides in colour above the same in normals; returns the coloured ones [4, 3, size, size]."""
    with torch.no_grad():
        cameras = ring(4, elevation_deg=config.elevation_deg)
        rows = [
            render_mesh(
                mesh, cameras, config.size, config.size, background=_WHITE, supersample=2, mode=mode
            ).images
            for mode in ("shaded", "normal")
        ]
    save_png(grid(torch.stack(rows)), path)
    return rows[0]
