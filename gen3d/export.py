"""Write an asset to files, and check every file by rendering it again.

GLB: PBR material, embedded texture, +Y up. OBJ: with MTL and PNG. PLY: vertex colours. Files appear whole or not at
all, and the same mesh gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gen3d.asset import Mesh
from gen3d.cameras import Cameras
from gen3d.glb import load_glb, save_glb
from gen3d.metrics import psnr
from gen3d.plain_formats import load_obj, load_ply, save_obj, save_ply
from gen3d.render.shading import render_mesh

__all__ = [
    "export_asset",
    "load_glb",
    "load_mesh",
    "load_obj",
    "load_ply",
    "save_glb",
    "save_obj",
    "save_ply",
]

_LOADERS: dict[str, Callable[[str | Path], Mesh]] = {"glb": load_glb, "obj": load_obj, "ply": load_ply}


def load_mesh(path: str | Path) -> Mesh:
    """Read a .glb, .obj or .ply that this module wrote."""
    kind = Path(path).suffix.lower().lstrip(".")
    if kind not in _LOADERS:
        raise ValueError(f"path must end in one of {sorted(_LOADERS)}, got {Path(path).name!r}.")
    return _LOADERS[kind](path)


def export_asset(
    mesh: Mesh,
    folder: str | Path,
    *,
    cameras: Cameras,
    formats: Sequence[str] = ("glb", "obj", "ply"),
    name: str = "mesh",
    size: int = 256,
    extras: dict[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Write the mesh in each format and compare a render from the file with one of the mesh.

    cameras: the views compared, at size x size pixels, shaded, over the pixels that either of the two covers.
    extras: JSON-able provenance for the GLB's asset.extras.
    Returns {format: {"path": str, "files": [str, ...], "psnr": float in dB, "bytes": int}}.
    """
    for kind in formats:
        if kind not in _LOADERS:
            raise ValueError(f"formats must be among {sorted(_LOADERS)}, got {kind!r}.")
    folder = Path(folder)
    source = render_mesh(mesh.detach(), cameras, size, size)
    report: dict[str, dict[str, Any]] = {}
    for kind in formats:
        path = folder / f"{name}.{kind}"
        files = [path]
        if kind == "glb":
            save_glb(mesh, path, name=name, extras=extras)
        elif kind == "obj":
            files = save_obj(mesh, path)
        else:
            save_ply(mesh, path)
        again = render_mesh(load_mesh(path), cameras, size, size)
        covered = (source.mask > 0.0) | (again.mask > 0.0)
        report[kind] = {
            "path": str(path),
            "files": [str(file) for file in files],
            "psnr": psnr(source.images.cpu(), again.images, covered.cpu()),
            "bytes": sum(file.stat().st_size for file in files),
        }
    return report
