"""Wavefront OBJ (with MTL and PNG) and binary PLY, written and read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffusion.files import write_bytes
from gen3d.asset import Material, Mesh
from gen3d.files import decode_png, encode_png
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


def _load_mtl(path: Path) -> Material:
    values = dict(line.split(maxsplit=1) for line in path.read_text().splitlines() if len(line.split()) > 1)
    texture = None
    if "map_Kd" in values:
        # Only the name counts: a material must not reach out of its folder.
        texture = decode_png((path.parent / Path(values["map_Kd"].strip()).name).read_bytes(), path.name)
    red, green, blue = (float(value) for value in values.get("Kd", "0.8 0.8 0.8").split()[:3])
    return Material(texture, (red, green, blue), float(values.get("Pm", 0.0)), float(values.get("Pr", 0.9)))


def load_obj(path: str | Path) -> Mesh:
    """Read an OBJ of triangles with its material; texture and normal indices must equal the position's."""
    path = Path(path)
    rows: dict[str, list[list[float]]] = {"v": [], "vt": [], "vn": []}
    faces: list[list[int]] = []
    material = Material()
    try:
        for line in path.read_text().splitlines():
            tag, _, rest = line.partition(" ")
            if tag in rows:
                rows[tag].append([float(value) for value in rest.split()])
            elif tag == "f":
                corners = [corner.split("/") for corner in rest.split()]
                if len(corners) != 3 or any(
                    len({index for index in corner if index}) != 1 for corner in corners
                ):
                    raise ValueError(f"unsupported face {line!r}")
                faces.append([int(corner[0]) - 1 for corner in corners])
            elif tag == "mtllib":
                material = _load_mtl(path.parent / Path(rest.strip()).name)
        columns = torch.tensor(rows["v"], dtype=torch.float64)
        uvs = torch.tensor(rows["vt"], dtype=torch.float64) if rows["vt"] else None
        if uvs is not None:
            uvs = torch.stack([uvs[:, 0], 1.0 - uvs[:, 1]], dim=1).float()
        return Mesh(
            columns[:, :3].float(),
            torch.tensor(faces, dtype=torch.int64),
            torch.tensor(rows["vn"], dtype=torch.float32) if rows["vn"] else None,
            uvs,
            columns[:, 3:].float() if columns.shape[1] == 6 else None,
            material,
        )
    except (ValueError, IndexError, FileNotFoundError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name} is not an OBJ as save_obj writes it: {error}") from error


_PLY_TYPES = {"float": "<f4", "uchar": "u1"}


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
    kinds = {dtype: kind for kind, dtype in _PLY_TYPES.items()}
    header = ["ply", "format binary_little_endian 1.0", "comment Galatea", f"element vertex {len(vertices)}"]
    header += [f"property {kinds[dtype]} {name}" for name, dtype in fields]
    header += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header"]
    write_bytes(Path(path), ("\n".join(header) + "\n").encode() + vertices.tobytes() + faces.tobytes())


def load_ply(path: str | Path) -> Mesh:
    """Read a PLY of the kind `save_ply` writes."""
    path = Path(path)
    data = path.read_bytes()
    try:
        end = data.index(b"end_header\n") + len(b"end_header\n")
        header = [line.split() for line in data[:end].decode("ascii").splitlines()]
        if header[0] != ["ply"] or header[1][1] != "binary_little_endian":
            raise ValueError("only binary little-endian PLY is supported")
        counts = {line[1]: int(line[2]) for line in header if line[0] == "element"}
        fields = [
            (line[2], _PLY_TYPES[line[1]]) for line in header if line[0] == "property" and line[1] != "list"
        ]
        vertices = np.frombuffer(data, dtype=fields, count=counts["vertex"], offset=end)
        face_type = np.dtype([("count", "u1"), ("index", "<i4", (3,))])
        faces = np.frombuffer(data, dtype=face_type, count=counts["face"], offset=end + vertices.nbytes)
        if (faces["count"] != 3).any():
            raise ValueError("only triangles are supported")

        def columns(*names: str) -> Tensor:
            return torch.from_numpy(np.stack([vertices[name] for name in names], axis=1).astype(np.float32))

        return Mesh(
            columns("x", "y", "z"),
            torch.from_numpy(faces["index"].astype(np.int64)),
            columns("nx", "ny", "nz"),
            None,
            columns("red", "green", "blue") / 255.0,
        )
    except (ValueError, KeyError, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name} is not a PLY as save_ply writes it: {error}") from error
