"""Binary glTF 2.0, written with one mesh and one metallic-roughness material, the texture embedded as PNG;
and the frame of such files taken apart.

Positions are written as they are: the world is glTF's own (right-handed, +Y up, front +Z).
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch

from files.atomic import write_bytes
from gen3d.asset import Mesh
from gen3d.color import srgb_to_linear
from gen3d.files import encode_png
from gen3d.meshing import with_normals

GENERATOR = "Galatea"
_MAGIC, _JSON, _BIN = 0x46546C67, 0x4E4F534A, 0x004E4942
_FLOAT, _UINT16, _UINT32 = 5126, 5123, 5125
_DTYPES = {_FLOAT: np.dtype("<f4"), _UINT16: np.dtype("<u2"), _UINT32: np.dtype("<u4")}
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


def unit_normals(normals: np.ndarray) -> np.ndarray:
    """Normals [N, 3] of any length as unit vectors, float64; +Y where there is none."""
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
        "NORMAL": buffer.add_array(unit_normals(mesh.normals.numpy()), _FLOAT, _ARRAY_BUFFER),
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
    except (KeyError, ValueError, RecursionError) as error:
        raise ValueError(f"{source} is damaged: no readable JSON chunk.") from error
