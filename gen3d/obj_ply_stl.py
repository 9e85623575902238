"""Wavefront OBJ (with MTL and PNG), binary PLY and binary STL, written. The same mesh gives the same bytes."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from files.atomic import write_bytes
from gen3d.asset import Mesh
from gen3d.files import encode_png
from gen3d.meshing import merge_positions, with_normals
from gen3d.texture import texture_to_vertex_colors


def _lines(tag: str, values: np.ndarray, pattern: str = "%.9g") -> list[str]:
    # Nine digits bring every float32 back exactly.
    template = tag + (" " + pattern) * values.shape[1]
    return [template % tuple(row) for row in values.tolist()]


def save_obj(mesh: Mesh, path: str | Path) -> list[Path]:
    """Write path, and beside it .mtl and, for a textured mesh, .png of the same stem. Returns the files.

    OBJ counts v upwards from the bottom of the picture. Without a texture, vertex colours follow the positions.
    """
    path = Path(path)
    mesh = (with_normals(mesh) if mesh.normals is None else mesh).detach().to("cpu")
    assert mesh.normals is not None
    texture, uvs = mesh.material.base_color_texture, mesh.uvs
    files = [path, path.with_suffix(".mtl")]
    red, green, blue = mesh.material.base_color
    material = ["newmtl base", "Ka 0 0 0", "Ks 0 0 0", "illum 1"]
    if texture is None:
        material.append(f"Kd {red:.9g} {green:.9g} {blue:.9g}")
    else:
        files.append(path.with_suffix(".png"))
        material += ["Kd 1 1 1", f"map_Kd {files[2].name}"]
        write_bytes(files[2], encode_png(texture))
    material += [f"Pr {mesh.material.roughness:.9g}", f"Pm {mesh.material.metallic:.9g}"]
    write_bytes(files[1], ("\n".join(material) + "\n").encode())

    columns = [mesh.vertices]
    if texture is None and mesh.vertex_colors is not None:
        columns.append(mesh.vertex_colors)
    lines = ["# Galatea", f"mtllib {files[1].name}", *_lines("v", torch.cat(columns, dim=1).numpy())]
    faces = mesh.faces.numpy() + 1
    if uvs is not None:
        lines += _lines("vt", torch.stack([uvs[:, 0], 1.0 - uvs[:, 1].double()], dim=1).numpy())
    lines += _lines("vn", mesh.normals.numpy())
    lines.append("usemtl base")
    corner = "%d/%d/%d" if uvs is not None else "%d//%d"
    template = "f " + " ".join([corner] * 3)
    repeats = 3 if uvs is not None else 2
    lines += [template % tuple(row) for row in np.repeat(faces, repeats, axis=1).tolist()]
    write_bytes(path, ("\n".join(lines) + "\n").encode())
    return files


def save_ply(mesh: Mesh, path: str | Path) -> None:
    """Write binary PLY with normals and 8-bit vertex colours; a texture is looked up at the vertices.

    Seam vertices are welded, so the file is as closed as the surface.
    """
    mesh = texture_to_vertex_colors((with_normals(mesh) if mesh.normals is None else mesh).detach().to("cpu"))
    if mesh.vertex_colors is None:
        color = torch.tensor(mesh.material.base_color).expand(mesh.num_vertices, 3)
        mesh = mesh.replace(vertex_colors=color)
    mesh = merge_positions(mesh)
    assert mesh.normals is not None
    assert mesh.vertex_colors is not None
    fields = [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("nx", "<f4"), ("ny", "<f4"), ("nz", "<f4")]
    fields += [("red", "u1"), ("green", "u1"), ("blue", "u1")]
    vertices = np.empty(mesh.num_vertices, dtype=fields)
    columns: list[Tensor] = [
        *mesh.vertices.T,
        *mesh.normals.T,
        *(mesh.vertex_colors * 255.0).round().clamp(0, 255).T,
    ]
    for (name, _), column in zip(fields, columns, strict=False):
        vertices[name] = column.numpy()
    faces = np.empty(mesh.num_faces, dtype=[("count", "u1"), ("index", "<i4", (3,))])
    faces["count"] = 3
    faces["index"] = mesh.faces.numpy()
    kinds = {"<f4": "float", "u1": "uchar"}
    header = ["ply", "format binary_little_endian 1.0", "comment Galatea", f"element vertex {len(vertices)}"]
    header += [f"property {kinds[dtype]} {name}" for name, dtype in fields]
    header += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header"]
    write_bytes(Path(path), ("\n".join(header) + "\n").encode() + vertices.tobytes() + faces.tobytes())


def save_stl(mesh: Mesh, path: str | Path) -> None:
    """Write binary STL: triangles and their normals, in the mesh's units. It carries no colours."""
    corners = mesh.vertices.detach().cpu()[mesh.faces.cpu()].numpy()
    facets = np.zeros(
        len(corners), dtype=[("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")]
    )
    wide = corners.astype(np.float64)
    normals = np.cross(wide[:, 1] - wide[:, 0], wide[:, 2] - wide[:, 0])
    # A triangle without area has the normal 0, by which readers know to find their own.
    facets["normal"] = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    facets["corners"] = corners
    # "solid" at the beginning would make it look like text.
    header = b"Galatea, binary STL, +Y up".ljust(80)
    write_bytes(Path(path), header + struct.pack("<I", len(facets)) + facets.tobytes())
