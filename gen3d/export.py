"""Write an asset to files, and check every file by rendering it again.

GLB: PBR material, embedded texture, +Y up. OBJ: with MTL and PNG. PLY: vertex colours. STL: shape alone. Files appear
whole or not at all, and the same mesh gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gen3d.asset import Mesh
from gen3d.cameras import Cameras
from gen3d.glb import save_glb
from gen3d.mesh_files import load_mesh_file
from gen3d.metrics import psnr
from gen3d.obj_ply_stl import save_obj, save_ply, save_stl
from gen3d.render.shading import render_mesh

__all__ = ["export_asset", "save_glb", "save_obj", "save_ply", "save_stl"]

_FORMATS = ("glb", "obj", "ply", "stl")


def export_asset(
    mesh: Mesh,
    folder: str | Path,
    *,
    cameras: Cameras,
    formats: Sequence[str] = _FORMATS,
    name: str = "mesh",
    size: int = 256,
    extras: dict[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Write the mesh in each format and compare a render from the file with one of the mesh.

    cameras: the views compared, at size x size pixels, shaded, over the pixels that either of the two covers; for STL,
        which carries no colours, without them.
    extras: JSON-able provenance for the GLB's asset.extras.
    Returns {format: {"path": str, "files": [str, ...], "psnr": float in dB, "bytes": int}}.
    """
    for kind in formats:
        if kind not in _FORMATS:
            raise ValueError(f"formats must be among {list(_FORMATS)}, got {kind!r}.")
    folder = Path(folder)
    source = render_mesh(mesh.detach(), cameras, size, size)
    report: dict[str, dict[str, Any]] = {}
    for kind in formats:
        compared = source
        path = folder / f"{name}.{kind}"
        files = [path]
        if kind == "glb":
            save_glb(mesh, path, name=name, extras=extras)
        elif kind == "obj":
            files = save_obj(mesh, path)
        elif kind == "ply":
            save_ply(mesh, path)
        else:
            save_stl(mesh, path)
            compared = render_mesh(Mesh(mesh.vertices.detach(), mesh.faces), cameras, size, size)
        again = render_mesh(load_mesh_file(path), cameras, size, size)
        covered = (compared.mask > 0.0) | (again.mask > 0.0)
        report[kind] = {
            "path": str(path),
            "files": [str(file) for file in files],
            "psnr": psnr(compared.images.cpu(), again.images, covered.cpu()),
            "bytes": sum(file.stat().st_size for file in files),
        }
    return report
