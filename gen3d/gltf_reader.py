"""The triangles of a glTF 2.0 scene, from .glb, or from .gltf with the files that it names.

This is read here rather than by trimesh, which, without a word, leaves sparse values at zero, takes integers that stand
for fractions as they are, loses the mesh of a camera's node, and passes over pictures that it cannot read.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import torch
from torch import Tensor

from gen3d.asset import Material, Mesh
from gen3d.color import linear_to_srgb, srgb_to_linear
from gen3d.files import decode_picture, read_beside, read_whole
from gen3d.glb import read_glb, unit_normals
from gen3d.mesh_parts import check_size, make_part, unrolled

_DTYPES = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
_TRIANGLES, _REPEAT, _CLAMP = 4, 10497, 33071
# What a file may require and yet be read: these are followed, or concern no more than how a surface shines.
_EXTENSIONS = (
    "KHR_texture_transform",
    "KHR_mesh_quantization",
    "EXT_texture_webp",
    "KHR_materials_",
    "KHR_lights_",
)
_GLOSSY = "KHR_materials_pbrSpecularGlossiness"


def read_gltf(path: Path) -> list[Mesh]:
    """The primitives of a file's scene, each where the file's nodes put it, its colours in sRGB.

    Base colour alone is read: texture, factor and vertex colours (which glTF multiplies in linear light). Animation,
    skins, shape keys and what shines or lets light through are left out.

    Raises:
        ValueError: the file is damaged, holds something other than triangles, or what this reader does not know.
    """
    data = read_whole(path)
    if path.suffix.lower() == ".glb":
        tree, body = read_glb(data, path.name)
    else:
        tree, body = json.loads(data), b""
    try:
        return list(_Scene(tree, body, path).parts())
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"its description is incomplete or damaged: {error!r}") from error


class _Scene:
    """A file's description (JSON) with the bytes that it speaks of."""

    def __init__(self, tree: dict[str, Any], body: bytes, path: Path) -> None:
        self.tree, self.body, self.path = tree, body, path
        self.buffers: dict[int, bytes] = {}
        self.pictures: dict[int, Tensor] = {}
        self.materials: dict[int | None, Material] = {None: Material(None, (1.0, 1.0, 1.0), 1.0, 1.0)}
        version = str(tree["asset"]["version"])
        if not version.startswith("2"):
            raise ValueError(f"it is glTF {version}, 2.0 is read")
        needed = [
            name for name in tree.get("extensionsRequired", []) if not str(name).startswith(_EXTENSIONS)
        ]
        if needed:
            raise ValueError(f"it needs {', '.join(map(str, needed))}, which is not read; save it without")

    def item(self, kind: str, index: Any) -> dict[str, Any]:
        items = self.tree.get(kind, [])
        if type(index) is not int or not 0 <= index < len(items):
            raise ValueError(f"it names number {index!r} of {len(items)} {kind}")
        return items[index]

    def parts(self) -> Iterator[Mesh]:
        placed = list(self.placed())
        if not placed:
            raise ValueError("its scene shows no mesh")
        counts = [self.counts(primitive) for primitive, _ in placed]
        check_size(sum(vertices for vertices, _ in counts), sum(faces for _, faces in counts))
        for primitive, matrix in placed:
            yield self.part(primitive, matrix)

    def placed(self) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
        """Every primitive of the scene with the matrix [4, 4] that puts it into the world."""
        nodes = self.tree.get("nodes", [])
        children = {child for node in nodes for child in node.get("children", [])}
        roots = [index for index in range(len(nodes)) if index not in children]
        if "scenes" in self.tree:
            roots = self.item("scenes", self.tree.get("scene", 0)).get("nodes", [])
        waiting = [(root, np.eye(4)) for root in reversed(roots)]
        seen: set[int] = set()
        while waiting:
            index, above = waiting.pop()
            node = self.item("nodes", index)
            if index in seen:
                raise ValueError(f"node {index} stands at two places of the scene's tree")
            seen.add(index)
            matrix = above @ _local_matrix(node)
            if not np.isfinite(matrix).all():
                raise ValueError(f"the transform of node {index} is NaN or infinite")
            if "mesh" in node:
                for primitive in self.item("meshes", node["mesh"])["primitives"]:
                    yield primitive, matrix
            waiting += [(child, matrix) for child in reversed(node.get("children", []))]

    def counts(self, primitive: dict[str, Any]) -> tuple[int, int]:
        """Vertices and triangles of a primitive, before any of them is read."""
        if primitive.get("mode", _TRIANGLES) != _TRIANGLES:
            raise ValueError(
                f"a primitive has mode {primitive['mode']}, only triangles ({_TRIANGLES}) are read"
            )
        if "POSITION" not in primitive["attributes"]:
            raise ValueError("a primitive has no POSITION attribute")
        vertices = self.item("accessors", primitive["attributes"]["POSITION"])["count"]
        corners = (
            self.item("accessors", primitive["indices"])["count"] if "indices" in primitive else vertices
        )
        return vertices, corners // 3

    def part(self, primitive: dict[str, Any], matrix: np.ndarray) -> Mesh:
        """A primitive in the world."""
        attributes = primitive["attributes"]
        vertices = self.array(attributes["POSITION"])
        faces = self.array(primitive["indices"]) if "indices" in primitive else np.arange(len(vertices))
        if faces.size % 3 or vertices.shape[1:] != (3,):
            raise ValueError(f"a primitive has {faces.size} corners of {list(vertices.shape)} positions")
        faces = faces.reshape(-1, 3).astype(np.int64)
        normals = self.array(attributes["NORMAL"]) if "NORMAL" in attributes else None
        if not np.array_equal(matrix, np.eye(4)):  # as it is written otherwise, to the last bit
            linear, size = matrix[:3, :3], np.linalg.det(matrix[:3, :3])
            vertices = vertices.astype(np.float64) @ linear.T + matrix[:3, 3]
            # Normals stay across the surface; a mirror turns its faces round. What is flattened has new normals.
            normals = (
                None if normals is None or size == 0.0 else unit_normals(normals @ np.linalg.inv(linear))
            )
            faces = faces if size >= 0.0 else faces[:, ::-1]
        index = primitive.get("material")
        material, info = (
            self.material(index),
            _base(self.item("materials", index)) if index is not None else {},
        )
        uvs, repeats = None, False
        if material.base_color_texture is not None:
            uvs, repeats = self.uvs(attributes, info["baseColorTexture"])
        colors = None
        if "COLOR_0" in attributes:
            light = torch.from_numpy(_fractions(self.array(attributes["COLOR_0"]))[:, :3])
            if material.base_color_texture is None:
                light = light * srgb_to_linear(torch.tensor(material.base_color, dtype=torch.float64)).float()
                colors = linear_to_srgb(light).clamp(0.0, 1.0)
            elif not bool((light == 1.0).all()):  # the factor is in the texture already
                colors = linear_to_srgb(light).clamp(0.0, 1.0)
        part = make_part(vertices, faces, normals=normals, uvs=uvs, colors=colors, material=material)
        return unrolled(part) if repeats else part

    def uvs(self, attributes: dict[str, Any], info: dict[str, Any]) -> tuple[np.ndarray | None, bool]:
        """Texture coordinates [N, 2] for a texture, and whether it repeats outside [0, 1]."""
        moved = info.get("extensions", {}).get("KHR_texture_transform", {})
        name = f"TEXCOORD_{moved.get('texCoord', info.get('texCoord', 0))}"
        if name not in attributes:
            raise ValueError(f"a primitive has a texture and no {name}")
        uvs = _fractions(self.array(attributes[name])).astype(np.float64)
        if moved:
            if moved.get("rotation", 0.0):
                raise ValueError("a texture is turned (KHR_texture_transform); bake it")
            uvs = uvs * moved.get("scale", [1.0, 1.0]) + moved.get("offset", [0.0, 0.0])
        texture = self.item("textures", info["index"])
        sampler = self.item("samplers", texture["sampler"]) if "sampler" in texture else {}
        wraps = {sampler.get("wrapS", _REPEAT), sampler.get("wrapT", _REPEAT)}
        if not np.isfinite(uvs).all():
            raise ValueError(f"a primitive's {name} is NaN or infinite")
        if len(uvs) == 0 or (uvs.min() >= 0.0 and uvs.max() <= 1.0):
            return uvs, False
        if len(wraps) > 1 or not wraps <= {_REPEAT, _CLAMP}:
            raise ValueError("a texture repeats mirrored, or along one axis alone; bake it")
        return uvs, wraps == {_REPEAT}

    def material(self, index: int | None) -> Material:
        """The material of that index, or glTF's own where a primitive names none: one object for each."""
        if index not in self.materials:
            info = _base(self.item("materials", index))
            factor = torch.tensor(info.get("baseColorFactor", [1.0, 1.0, 1.0, 1.0])[:3], dtype=torch.float64)
            red, green, blue = linear_to_srgb(factor).clamp(0.0, 1.0).tolist()
            texture = None
            if "baseColorTexture" in info:
                texture = self.picture(self.item("textures", info["baseColorTexture"]["index"]))
                if not bool((factor == 1.0).all()):
                    texture = linear_to_srgb(srgb_to_linear(texture) * factor.float()).clamp(0.0, 1.0)
            shine = info.get("metallicFactor", 1.0), info.get("roughnessFactor", 1.0)
            self.materials[index] = Material(texture, (red, green, blue), *shine)
        return self.materials[index]

    def picture(self, texture: dict[str, Any]) -> Tensor:
        source = texture.get(
            "source", texture.get("extensions", {}).get("EXT_texture_webp", {}).get("source")
        )
        if source is None:
            raise ValueError("a texture is in a format that is not read; save it as PNG or JPEG")
        if source not in self.pictures:
            image = self.item("images", source)
            name = str(image.get("name") or image.get("uri", f"picture {source}")[:80])
            data = self.resource(image["uri"]) if "uri" in image else self.view(image["bufferView"])[0]
            self.pictures[source] = decode_picture(bytes(data), name)
        return self.pictures[source]

    def resource(self, uri: str) -> bytes:
        """The bytes of a `data:` address, or of a file beside this one."""
        if uri.startswith("data:"):
            head, _, text = uri.partition(",")
            if not head.endswith(";base64"):
                raise ValueError("it holds data that are not base64")
            return base64.b64decode(text, validate=True)
        return read_beside(self.path, unquote(uri))

    def buffer(self, index: Any) -> bytes:
        if index not in self.buffers:
            buffer = self.item("buffers", index)
            self.buffers[index] = self.resource(buffer["uri"]) if "uri" in buffer else self.body
        return self.buffers[index]

    def view(self, index: Any) -> tuple[memoryview, int | None]:
        """The bytes of a buffer view, and how far apart its values begin, if the file says it."""
        view = self.item("bufferViews", index)
        start, length = view.get("byteOffset", 0), view["byteLength"]
        data = memoryview(self.buffer(view["buffer"]))
        if not 0 <= start <= start + length <= len(data):
            raise ValueError(f"it is damaged: bytes {start} to {start + length} of {len(data)} are wanted")
        return data[start : start + length], view.get("byteStride")

    def array(self, index: Any) -> np.ndarray:
        """The values of an accessor [N] or [N, C]; integers that stand for fractions of one as float32."""
        accessor = self.item("accessors", index)
        if "sparse" in accessor or "bufferView" not in accessor:
            raise ValueError("it holds sparse or compressed values, which are not read; save it without")
        data, stride = self.view(accessor["bufferView"])
        width, dtype = _WIDTHS[accessor["type"]], np.dtype(_DTYPES[accessor["componentType"]])
        count, start = accessor["count"], accessor.get("byteOffset", 0)
        strides = (width * dtype.itemsize if stride is None else stride, dtype.itemsize)
        if type(count) is not int or count < 0 or strides[0] < 1:
            raise ValueError(f"an accessor has {count!r} values, {strides[0]} bytes apart")
        try:
            values = np.ndarray((count, width), dtype, data, start, strides)  # which checks the bounds
        except (TypeError, ValueError) as error:
            raise ValueError(f"it is damaged: an accessor reaches beyond its bytes ({error})") from error
        if accessor.get("normalized"):
            values = _fractions(values)
        return values if width > 1 else values[:, 0]


def _fractions(values: np.ndarray) -> np.ndarray:
    """Values as float32; integers as the fractions of one for which they stand."""
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    return np.maximum(values / np.float32(np.iinfo(values.dtype).max), np.float32(-1.0)).astype(np.float32)


def _base(material: dict[str, Any]) -> dict[str, Any]:
    """What a material says of its base colour, of the older kind that has a diffuse colour instead too."""
    glossy = material.get("extensions", {}).get(_GLOSSY)
    if "pbrMetallicRoughness" in material or glossy is None:
        return material.get("pbrMetallicRoughness", {})
    names = {"diffuseFactor": "baseColorFactor", "diffuseTexture": "baseColorTexture"}
    return {"metallicFactor": 0.0} | {names[name]: value for name, value in glossy.items() if name in names}


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
