"""Binary PLY whose faces have different numbers of corners, as one of triangles: trimesh wants them of one size."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np

from gen3d.mesh_parts import check_size

# The names that the format has for its types, old and new.
_TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4",
    "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
    "float32": "f4", "float64": "f8",
}  # fmt: skip


@dataclass
class _Element:
    name: str
    count: int
    properties: list[list[str]] = field(default_factory=list)  # the words of each line

    def dtype(self, order: str) -> np.dtype:
        """Of a record without lists."""
        return np.dtype([(words[-1], order + _TYPES[words[1]]) for words in self.properties])


def with_triangles(data: bytes) -> bytes:
    """The file itself if it is text or all its faces have three corners; else the same with its faces as fans of
    triangles, of which it then knows nothing more, and without what follows the faces.

    Files of several lists at each face, or of lists elsewhere before them, come back as they are.

    Raises:
        ValueError: the file ends before its faces do, or has too many.
    """
    end = re.search(rb"end_header\r?\n", data)
    lines = data[: end.start()].decode("latin-1").splitlines() if end else []
    if end is None or len(lines) < 2 or "binary" not in lines[1]:
        return data
    order = ">" if "big" in lines[1] else "<"
    offset, kept = end.end(), []
    for element in _elements(lines):
        is_list = [words[1] == "list" for words in element.properties]
        if element.name == "face":
            if sum(is_list) != 1:
                return data
            check_size(0, element.count)
            try:
                polygons = _polygons(data, offset, element, order)
            except ValueError as error:
                raise ValueError(f"it is cut short or damaged among its {element.count:,} faces") from error
            if polygons is None:
                return data
            return _file(lines[1], kept, data[end.end() : offset], polygons, order)
        if any(is_list):
            return data
        offset += element.count * element.dtype(order).itemsize
        kept += [
            f"element {element.name} {element.count}",
            *(" ".join(words) for words in element.properties),
        ]
    return data


def _elements(lines: list[str]) -> list[_Element]:
    elements: list[_Element] = []
    for words in map(str.split, lines):
        if words[:1] == ["element"] and len(words) == 3:
            elements.append(_Element(words[1], int(words[2])))
        elif words[:1] == ["property"] and elements:
            elements[-1].properties.append(words)
    return elements


def _polygons(data: bytes, offset: int, faces: _Element, order: str) -> list[np.ndarray] | None:
    """The corners of each face, and what else a record holds left out; None if they are three throughout."""
    (place,) = (index for index, words in enumerate(faces.properties) if words[1] == "list")
    before, after = (
        sum(np.dtype(_TYPES[words[1]]).itemsize for words in part)
        for part in (faces.properties[:place], faces.properties[place + 1 :])
    )
    count_type, index_type = (np.dtype(order + _TYPES[word]) for word in faces.properties[place][2:4])
    record = before + count_type.itemsize + 3 * index_type.itemsize + after
    if offset + faces.count * record <= len(data):
        counts = np.ndarray((faces.count,), count_type, data, offset + before, (record,))
        if bool((counts == 3).all()):
            return None
    polygons = []
    for _ in range(faces.count):
        offset += before
        count = int(np.frombuffer(data, count_type, 1, offset)[0])
        offset += count_type.itemsize
        polygons.append(np.frombuffer(data, index_type, count, offset) if count else np.zeros(0, index_type))
        offset += count * index_type.itemsize + after
    return polygons


def _file(encoding: str, head: list[str], before: bytes, polygons: list[np.ndarray], order: str) -> bytes:
    fans = [
        np.stack([np.full(len(each) - 2, each[0]), each[1:-1], each[2:]], axis=1)
        for each in polygons
        if len(each) >= 3
    ]
    corners = np.concatenate(fans) if fans else np.zeros((0, 3), dtype=np.int64)
    records = np.empty(len(corners), dtype=[("count", "u1"), ("index", order + "i4", 3)])
    records["count"], records["index"] = 3, corners
    lines = ["ply", encoding, *head, f"element face {len(corners)}", "property list uchar int vertex_indices"]
    return ("\n".join([*lines, "end_header"]) + "\n").encode("latin-1") + before + records.tobytes()
