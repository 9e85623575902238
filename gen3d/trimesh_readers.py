"""OBJ, PLY and STL files as the parts of a mesh, by trimesh; what it passes over in silence is refused.

trimesh is imported where it is used: it takes a third of a second, and most runs read no such file.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gen3d.asset import Material, Mesh
from gen3d.files import decode_picture, read_beside, read_whole
from gen3d.mesh_parts import make_part, unrolled
from gen3d.meshing import merge_positions
from gen3d.ply_polygons import with_triangles


class _Beside:
    """Gives trimesh the files that a mesh's file names, as `read_beside` allows it (trimesh's own follow any path, or
    fetch addresses). trimesh passes over what fails; `problem` keeps it. materials: the names in the library."""

    def __init__(self, path: Path, material_library: str | None = None) -> None:
        self.path, self.file_name, self.material_library = path, path.name, material_library
        self.problem: ValueError | None = None
        self.materials: set[str] = set()

    def get(self, name: str) -> bytes:
        try:
            data = read_beside(self.path, name.strip())
            if name == self.material_library:
                text = _text(data)
                names = re.findall(r"^\s*newmtl\s+(.*)", text, re.MULTILINE | re.IGNORECASE)
                self.materials.update(" ".join(each.split()) for each in names)
                return text.encode()
            decode_picture(data, name.strip())  # in order to know of a bad one
            return data
        except ValueError as error:
            self.problem = self.problem or error
            raise

    __getitem__ = get

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Within, trimesh is silent, and half-read numbers are errors; afterwards, so is a file that was not found."""
        log, silence = logging.getLogger("trimesh"), logging.NullHandler()
        before = log.propagate
        log.addHandler(silence)
        log.propagate = False
        try:
            with warnings.catch_warnings():
                # Of numpy, for text in which there is more than numbers (later versions raise ValueError), and for
                # numbers that do not fit.
                warnings.simplefilter("error", DeprecationWarning)
                warnings.simplefilter("error", RuntimeWarning)
                yield
        finally:
            log.propagate = before
            log.removeHandler(silence)
        if self.problem is not None:
            raise self.problem


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _triangles(faces: Any) -> np.ndarray:
    """Faces of three corners [M, 3], of faces [M, K] or of lists of different lengths."""
    from trimesh.geometry import triangulate_quads

    if isinstance(faces, np.ndarray) and faces.ndim == 2 and faces.shape[1] < 3:
        return np.zeros((0, 3), dtype=np.int64)
    return np.asarray(triangulate_quads(faces), dtype=np.int64).reshape(-1, 3)


def _numbers(values: np.ndarray | None) -> np.ndarray | None:
    """Colours as fractions of one: integers of 8 or 16 bits of their largest value."""
    if values is None or values.dtype.kind == "f":
        return values
    if values.dtype not in (np.uint8, np.uint16):
        raise ValueError(
            f"its vertex colours are {values.dtype}; 8 or 16 bits without a sign, or fractions are read"
        )
    return values / np.iinfo(values.dtype).max


def _pixels(image: Any) -> Tensor:
    """A picture that trimesh holds, and that `decode_picture` had nothing against: [H, W, 3] sRGB in [0, 1]."""
    return torch.from_numpy(np.asarray(image.convert("RGB"), dtype=np.float32) / np.float32(255.0))


# --------------------------------------------------------------------------------------------------- OBJ


def read_obj(path: Path) -> list[Mesh]:
    """A part for each material. A texture stands in place of Kd and of colours at the vertices."""
    from trimesh.exchange.obj import load_obj

    text = re.sub(r"^[ \t]*#.*$", "", _text(read_whole(path)), flags=re.MULTILINE)
    _check_obj(text)
    libraries = set(re.findall(r"^mtllib[ \t]+(.*\S)", text, re.MULTILINE))
    if len(libraries) > 1:
        raise ValueError(f"it names {len(libraries)} material libraries, one is read; join them")
    beside = _Beside(path, next(iter(libraries), None))
    with beside.reading():
        found: Any = load_obj(io.StringIO(text), resolver=beside)  # pyright: ignore
    if "vertices" in found:
        raise ValueError(f"it holds {len(found['vertices']):,} points and no faces")
    parts = list(found["geometry"].values())
    materials = [getattr(part["visual"], "material", None) for part in parts]
    # trimesh makes one up where it found none.
    materials = [each if each is not None and each.name in beside.materials else None for each in materials]
    if libraries and "\nusemtl" in text and not any(materials):
        raise ValueError(f"{beside.material_library} describes none of the materials that it uses")
    return [_obj_part(part, material) for part, material in zip(parts, materials, strict=True)]


def _check_obj(text: str) -> None:
    """Refuse what trimesh would misread or leave out without a word."""
    faces = re.search(r"^f\s", text, re.MULTILINE)
    if re.search(r"^f\s(?:.*[\s/])?-?0+(?:[\s/]|$)", text, re.MULTILINE):
        raise ValueError("a face names vertex 0; they are counted from 1")
    backwards = re.search(r"^f\s.*-\d", text, re.MULTILINE)
    if faces and backwards and re.search(r"^v[tn]?\s", text[faces.start() :], re.MULTILINE):
        raise ValueError(
            "its faces count backwards and stand between its vertices; save it with numbers from 1"
        )
    widths = {len(line.split()) for line in re.findall(r"^v\s.*$", text, re.MULTILINE)}
    if len(widths) > 1:
        raise ValueError(
            "some of its vertices have colours or weights and some have none, or a line is cut short"
        )


def _obj_part(found: dict[str, Any], described: Any) -> Mesh:
    """What trimesh found of one material, and its material, or None."""
    visual, material = found["visual"], Material()
    if described is not None:
        said = described.kwargs
        red, green, blue = np.broadcast_to(said.get("kd", material.base_color), 3).tolist()
        texture = None if described.image is None else _pixels(described.image)
        metallic, roughness = (float(said.get(key, [value])[0]) for key, value in (("pm", 0.0), ("pr", 0.9)))
        material = Material(texture, (red, green, blue), metallic, roughness)
    textured = material.base_color_texture is not None
    uvs = None if visual is None or visual.uv is None else _from_below(visual.uv)
    return unrolled(
        make_part(
            found["vertices"],
            _triangles(found["faces"]),
            normals=found.get("vertex_normals"),
            uvs=uvs,
            colors=None if textured else _numbers(found.get("vertex_colors")),
            material=material,
        )
    )


def _from_below(uvs: np.ndarray) -> np.ndarray:
    """UVs that count v upwards from the bottom of the picture as glTF's, which count it downwards from the top."""
    return np.stack([uvs[:, 0], 1.0 - np.asarray(uvs[:, 1], dtype=np.float64)], axis=1)


# --------------------------------------------------------------------------------------------------- PLY


def read_ply(path: Path) -> list[Mesh]:
    """One part. A texture stands in place of colours at the vertices."""
    from trimesh.exchange.ply import load_ply

    data = with_triangles(whole := read_whole(path))
    head = whole[: data.find(b"end_header")]
    texture = re.search(rb"^comment\s+TextureFile\s+(.+?)\s*$", head, re.MULTILINE | re.IGNORECASE)
    beside = _Beside(path)
    with beside.reading():
        # UVs at the faces' corners part the vertices, but not their colours: wanted only where there is a texture.
        found: Any = load_ply(io.BytesIO(data), beside, fix_texture=texture is not None)  # pyright: ignore
    _check_ply(found["metadata"]["_ply_raw"])
    if found.get("faces") is None:
        raise ValueError(f"it holds {len(found.get('vertices', [])):,} points and no faces")
    material, uvs = Material(), None
    if texture is not None:
        visual = found.get("visual")
        if visual is None or visual.material.image is None:
            raise ValueError("it has a texture and no texture coordinates for it")
        material, uvs = Material(_pixels(visual.material.image)), _from_below(visual.uv)
    colors = None if texture is not None else _numbers(found.get("vertex_colors"))
    if colors is None and texture is None and found.get("face_colors") is not None:
        raise ValueError("its colours are on its faces; colours on its vertices or a texture are read")
    normals = found.get("vertex_normals")
    part = make_part(
        found["vertices"],
        _triangles(found["faces"]),
        normals=normals,
        uvs=uvs,
        colors=colors,
        material=material,
    )
    return [unrolled(part)]


def _check_ply(elements: dict[str, Any]) -> None:
    """Refuse text that is cut short, and binary faces of different sizes that are taken for others."""
    for name in {"vertex", "face"} & set(elements):
        length, values = elements[name]["length"], elements[name].get("data")
        if isinstance(values, dict):
            values = next(iter(values.values()), None)
        count = 0 if values is None else len(values)
        if count != length:
            raise ValueError(f"it is cut short: {count:,} of {length:,} lines of {name} are there")
        if isinstance(values, np.ndarray) and values.dtype.names:
            for field in values.dtype.names:
                part = values[field]
                if part.dtype.names and len(np.unique(part["f0"])) > 1:
                    raise ValueError(
                        "it is damaged, or its faces have different numbers of corners; triangulate them"
                    )


# --------------------------------------------------------------------------------------------------- STL


def read_stl(path: Path) -> list[Mesh]:
    """A part for each solid, its vertices welded; colours that some programs hide in the file are left out."""
    from trimesh.exchange.stl import load_stl

    data = read_whole(path)
    with _Beside(path).reading():
        found = load_stl(io.BytesIO(data))
    solids = [found] if "vertices" in found else list(found["geometry"].values())
    facets = sum(len(each["faces"]) for each in solids)
    if (
        data[:5].lower() == b"solid"
        and len(data) != 84 + 50 * facets
        and facets != data.lower().count(b"endfacet")
    ):
        raise ValueError("it is cut short or damaged")
    if not facets:
        raise ValueError("it is cut short, damaged or empty: no triangles are found")
    return [
        merge_positions(make_part(each["vertices"], each["faces"], material=Material())) for each in solids
    ]
