"""Binary glTF 2.0, written with one mesh and one metallic-roughness material, the texture embedded as PNG; and read.

Positions are written as they are: the world is glTF's own (right-handed, +Y up, front +Z).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion.files import write_bytes
from gen3d.asset import Material, Mesh
from gen3d.color import linear_to_srgb, srgb_to_linear
from gen3d.files import decode_png, encode_png
from gen3d.meshing import with_normals

GENERATOR = "Galatea"
_MAGIC, _JSON, _BIN = 0x46546C67, 0x4E4F534A, 0x004E4942
_FLOAT, _UINT8, _UINT16, _UINT32 = 5126, 5121, 5123, 5125
_DTYPES = {
    _FLOAT: np.dtype("<f4"),
    _UINT8: np.dtype("u1"),
    _UINT16: np.dtype("<u2"),
    _UINT32: np.dtype("<u4"),
}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
_ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER = 34962, 34963


class _Buffer:
    """Collects the binary chunk with its buffer views and accessors."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def add_bytes(self, data: bytes, target: int | None = None) -> int:
        view: dict[str, Any] = {"buffer": 0, "byteOffset": len(self.data), "byteLength": len(data)}
        if target is not None:
            view["target"] = target
        self.views.append(view)
        self.data += data + b"\0" * (-len(data) % 4)
        return len(self.views) - 1

    def add_array(self, values: np.ndarray, component: int, target: int, *, limits: bool = False) -> int:
        values = np.ascontiguousarray(values, dtype=_DTYPES[component])
        width = 1 if values.ndim == 1 else values.shape[1]
        kind = {1: "SCALAR", 2: "VEC2", 3: "VEC3"}[width]
        accessor: dict[str, Any] = {
            "bufferView": self.add_bytes(values.tobytes(), target),
            "componentType": component,
            "count": len(values),
            "type": kind,
        }
        if limits:
            accessor["min"] = [float(value) for value in np.atleast_2d(values).min(axis=0)]
            accessor["max"] = [float(value) for value in np.atleast_2d(values).max(axis=0)]
        self.accessors.append(accessor)
        return len(self.accessors) - 1


def _unit(normals: np.ndarray) -> np.ndarray:
    wide = normals.astype(np.float64)
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    return np.where(length > 1e-12, wide / np.maximum(length, 1e-12), [0.0, 1.0, 0.0])


def glb_bytes(mesh: Mesh, *, name: str = "mesh", extras: dict[str, Any] | None = None) -> bytes:
    """The mesh as GLB. extras: JSON-able values put into asset.extras, for provenance."""
    if mesh.num_faces == 0:
        raise ValueError("mesh has no faces: a GLB needs at least one triangle.")
    mesh = (with_normals(mesh) if mesh.normals is None else mesh).detach().to("cpu")
    texture = mesh.material.base_color_texture
    buffer = _Buffer()
    assert mesh.normals is not None
    attributes = {
        "POSITION": buffer.add_array(mesh.vertices.numpy(), _FLOAT, _ARRAY_BUFFER, limits=True),
        "NORMAL": buffer.add_array(_unit(mesh.normals.numpy()), _FLOAT, _ARRAY_BUFFER),
    }
    pbr: dict[str, Any] = {
        "metallicFactor": mesh.material.metallic,
        "roughnessFactor": mesh.material.roughness,
    }
    if texture is not None and mesh.uvs is not None:
        attributes["TEXCOORD_0"] = buffer.add_array(mesh.uvs.numpy(), _FLOAT, _ARRAY_BUFFER)
        pbr["baseColorTexture"] = {"index": 0}
    elif mesh.vertex_colors is not None:
        # Vertex colours are linear in glTF, and multiply the base colour factor.
        colors = srgb_to_linear(mesh.vertex_colors.clamp(0.0, 1.0))
        attributes["COLOR_0"] = buffer.add_array(colors.numpy(), _FLOAT, _ARRAY_BUFFER)
    else:
        factor = srgb_to_linear(torch.tensor(mesh.material.base_color, dtype=torch.float64)).tolist()
        pbr["baseColorFactor"] = [*factor, 1.0]
    # 65535 itself is reserved.
    component = _UINT16 if mesh.num_vertices < 65535 else _UINT32
    indices = buffer.add_array(mesh.faces.reshape(-1).numpy(), component, _ELEMENT_ARRAY_BUFFER)
    asset: dict[str, Any] = {"version": "2.0", "generator": GENERATOR}
    if extras:
        asset["extras"] = extras
    document: dict[str, Any] = {
        "asset": asset,
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"name": name, "mesh": 0}],
        "meshes": [
            {"name": name, "primitives": [{"attributes": attributes, "indices": indices, "material": 0}]}
        ],
        "materials": [{"name": name, "pbrMetallicRoughness": pbr}],
    }
    if "baseColorTexture" in pbr:
        assert texture is not None
        view = buffer.add_bytes(encode_png(texture))
        document["textures"] = [{"source": 0, "sampler": 0}]
        document["images"] = [{"name": "base_color", "mimeType": "image/png", "bufferView": view}]
        # Linear filtering with mip levels, clamped at the border.
        document["samplers"] = [{"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}]
    document["accessors"] = buffer.accessors
    document["bufferViews"] = buffer.views
    document["buffers"] = [{"byteLength": len(buffer.data)}]
    head = json.dumps(document, separators=(",", ":"), allow_nan=False).encode("ascii")
    head += b" " * (-len(head) % 4)
    body = bytes(buffer.data)
    total = 12 + 8 + len(head) + 8 + len(body)
    chunks = struct.pack("<II", len(head), _JSON) + head + struct.pack("<II", len(body), _BIN) + body
    return struct.pack("<III", _MAGIC, 2, total) + chunks


def save_glb(
    mesh: Mesh, path: str | Path, *, name: str = "mesh", extras: dict[str, Any] | None = None
) -> None:
    """Write the mesh as GLB, atomically. The same mesh gives the same bytes."""
    write_bytes(Path(path), glb_bytes(mesh, name=name, extras=extras))


def read_glb(data: bytes, source: str = "the file") -> tuple[dict[str, Any], bytes]:
    """Split GLB bytes into the JSON document and the binary chunk; ValueError if the frame is damaged."""
    if len(data) < 20 or struct.unpack_from("<II", data) != (_MAGIC, 2):
        raise ValueError(f"{source} is not a GLB file (binary glTF 2.0).")
    if struct.unpack_from("<I", data, 8)[0] != len(data):
        raise ValueError(
            f"{source} is damaged: its header says {struct.unpack_from('<I', data, 8)[0]} bytes, got {len(data)}."
        )
    chunks: dict[int, bytes] = {}
    offset = 12
    while offset + 8 <= len(data):
        length, kind = struct.unpack_from("<II", data, offset)
        if offset + 8 + length > len(data):
            raise ValueError(f"{source} is damaged: a chunk of {length} bytes runs past the end.")
        chunks.setdefault(kind, data[offset + 8 : offset + 8 + length])
        offset += 8 + length
    try:
        return json.loads(chunks[_JSON]), chunks.get(_BIN, b"")
    except (KeyError, ValueError) as error:
        raise ValueError(f"{source} is damaged: no readable JSON chunk.") from error


def _array(document: dict[str, Any], body: bytes, index: int) -> np.ndarray:
    accessor = document["accessors"][index]
    view = document["bufferViews"][accessor["bufferView"]]
    width, dtype = _WIDTHS[accessor["type"]], _DTYPES[accessor["componentType"]]
    if view.get("byteStride", width * dtype.itemsize) != width * dtype.itemsize:
        raise ValueError("interleaved attributes are not supported")
    start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
    values = np.frombuffer(body, dtype=dtype, count=accessor["count"] * width, offset=start)
    if accessor.get("normalized"):
        values = values / np.float32(np.iinfo(dtype).max)
    return values.reshape(-1, width) if width > 1 else values


def load_glb(path: str | Path) -> Mesh:
    """The triangles of a GLB's scene as one mesh, each node of it where the file's transforms put it.

    Several meshes and primitives are joined if they have one material, or if none of their materials has a texture,
    which become vertex colours. Animation and skins are left out.

    Raises:
        ValueError: the file is damaged, holds no triangles, or what this reader does not know.
    """
    path = Path(path)
    document, body = read_glb(path.read_bytes(), path.name)
    try:
        placed = list(_placed_primitives(document))
        parts = [_primitive(document, body, primitive, matrix) for primitive, matrix in placed]
        materials = [primitive.get("material") for primitive, _ in placed]
        if not parts:
            raise ValueError("its scene shows no mesh")
        if len(set(materials)) == 1:
            material = _material(document, body, materials[0], path.name)
            return _joined(parts, material)
        found = [_material(document, body, index, path.name) for index in materials]
        if any(each.base_color_texture is not None for each in found):
            raise ValueError(
                f"it has {len(set(materials))} materials, some with textures, and a mesh has one; bake one"
            )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path.name} is no GLB of triangles that can be read as one mesh: {error}"
        ) from error
    return _joined([_painted(part, each) for part, each in zip(parts, found, strict=True)], Material())


def _placed_primitives(document: dict[str, Any]) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Every primitive of the scene with the matrix ``[4, 4]`` that puts it into the world."""
    nodes = document.get("nodes", [])
    children = {child for node in nodes for child in node.get("children", [])}
    roots = [index for index in range(len(nodes)) if index not in children]
    if "scenes" in document:
        roots = document["scenes"][document.get("scene", 0)].get("nodes", [])
    waiting = [(root, np.eye(4)) for root in reversed(roots)]
    seen: set[int] = set()
    while waiting:
        index, above = waiting.pop()
        if index in seen:
            raise ValueError(f"node {index} stands at two places of the scene's tree")
        seen.add(index)
        node = nodes[index]
        matrix = above @ _local_matrix(node)
        if "mesh" in node:
            for primitive in document["meshes"][node["mesh"]]["primitives"]:
                yield primitive, matrix
        waiting += [(child, matrix) for child in reversed(node.get("children", []))]


def _local_matrix(node: dict[str, Any]) -> np.ndarray:
    """A node's own transform: its matrix, or scale, then rotation (quaternion x, y, z, w), then translation."""
    if "matrix" in node:
        return np.asarray(node["matrix"], dtype=np.float64).reshape(4, 4).T  # glTF stores columns
    x, y, z, w = np.asarray(node.get("rotation", [0.0, 0.0, 0.0, 1.0]), dtype=np.float64)
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    matrix = np.eye(4)
    matrix[:3, :3] = rotation * np.asarray(node.get("scale", [1.0, 1.0, 1.0]), dtype=np.float64)
    matrix[:3, 3] = node.get("translation", [0.0, 0.0, 0.0])
    return matrix


def _primitive(document: dict[str, Any], body: bytes, primitive: dict[str, Any], matrix: np.ndarray) -> Mesh:
    """A primitive in the world, without its material."""
    if primitive.get("mode", 4) != 4:
        raise ValueError(f"a primitive has mode {primitive['mode']}, and only triangles (4) are read")

    def attribute(name: str) -> np.ndarray | None:
        index = primitive["attributes"].get(name)
        return None if index is None else _array(document, body, index).astype(np.float32)

    def tensor(values: np.ndarray | None) -> Tensor | None:
        return None if values is None else torch.from_numpy(values.astype(np.float32))

    vertices, normals, colors = attribute("POSITION"), attribute("NORMAL"), tensor(attribute("COLOR_0"))
    if vertices is None:
        raise ValueError("a primitive has no POSITION attribute")
    faces = np.arange(len(vertices))
    if "indices" in primitive:
        faces = _array(document, body, primitive["indices"])
    faces = faces.astype(np.int64).reshape(-1, 3)
    if not np.array_equal(matrix, np.eye(4)):  # as it is written otherwise, to the last bit
        linear, size = matrix[:3, :3], np.linalg.det(matrix[:3, :3])
        vertices = vertices.astype(np.float64) @ linear.T + matrix[:3, 3]
        # Normals stay across the surface; a mirror turns its faces round. What is flattened has new normals.
        normals = None if normals is None or size == 0.0 else _unit(normals @ np.linalg.inv(linear))
        faces = faces if size >= 0.0 else faces[:, ::-1].copy()
    placed = tensor(vertices)
    assert placed is not None
    return Mesh(
        placed,
        torch.from_numpy(faces),
        tensor(normals),
        tensor(attribute("TEXCOORD_0")),
        None if colors is None else linear_to_srgb(colors[:, :3]).clamp(0.0, 1.0),
    )


def _material(document: dict[str, Any], body: bytes, index: int | None, source: str) -> Material:
    """The material of that index, or glTF's own where a primitive names none."""
    found = {} if index is None else document["materials"][index].get("pbrMetallicRoughness", {})
    texture = None
    if "baseColorTexture" in found:
        image = document["images"][document["textures"][found["baseColorTexture"]["index"]]["source"]]
        view = document["bufferViews"][image["bufferView"]]
        start = view.get("byteOffset", 0)
        texture = decode_png(body[start : start + view["byteLength"]], source)
    factor = linear_to_srgb(
        torch.tensor(found.get("baseColorFactor", [1.0, 1.0, 1.0, 1.0])[:3], dtype=torch.float64)
    )
    red, green, blue = factor.clamp(0.0, 1.0).tolist()
    return Material(
        texture, (red, green, blue), found.get("metallicFactor", 1.0), found.get("roughnessFactor", 1.0)
    )


def _painted(part: Mesh, material: Material) -> Mesh:
    """The part with its material's colour at its vertices."""
    if part.vertex_colors is not None:
        return part
    return part.replace(vertex_colors=torch.tensor(material.base_color).expand(part.num_vertices, 3).clone())


def _joined(parts: list[Mesh], material: Material) -> Mesh:
    """All parts as one mesh of one material; what not every part has is left out, but for colours and texture."""
    if material.base_color_texture is not None and any(part.uvs is None for part in parts):
        raise ValueError("a primitive has a texture and no TEXCOORD_0")
    if any(part.vertex_colors is not None for part in parts):
        parts = [_painted(part, material) for part in parts]
    offsets = np.cumsum([0, *(part.num_vertices for part in parts)])

    def join(name: str) -> Tensor | None:
        values = [getattr(part, name) for part in parts]
        return None if any(value is None for value in values) else torch.cat(values)

    return Mesh(
        torch.cat([part.vertices for part in parts]),
        torch.cat([part.faces + int(offset) for part, offset in zip(parts, offsets, strict=False)]),
        join("normals"),
        join("uvs"),
        join("vertex_colors"),
        material,
    )
