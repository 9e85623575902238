"""Meshes that users bring: GLB, glTF, OBJ, PLY and STL files of any origin, read as one `Mesh`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gen3d.asset import Mesh
from gen3d.gltf_reader import read_gltf
from gen3d.mesh_parts import check_extent, join, without_degenerate_faces
from gen3d.trimesh_readers import read_obj, read_ply, read_stl

_READERS: dict[str, Callable[[Path], list[Mesh]]] = {
    "glb": read_gltf,
    "gltf": read_gltf,
    "obj": read_obj,
    "ply": read_ply,
    "stl": read_stl,
}
_NAMES = {"glb": "GLB", "gltf": "glTF", "obj": "OBJ", "ply": "PLY", "stl": "STL"}


def load_mesh_file(path: str | Path) -> Mesh:
    """Read a .glb, .gltf, .obj, .ply or .stl file as one mesh, on the CPU, in the file's own axes and units.

    Colours: base-colour textures with their factors and UVs, and colours at the vertices, in sRGB. A texture that
    repeats becomes one that does not. Several textures become one, side by side; where a part has colours at its
    vertices, all has, and textures are looked up there (`mesh_parts.join`). In OBJ a texture stands in place of Kd, and
    in OBJ and PLY in place of vertex colours as well. What lets light through is opaque.

    Shape: nodes are where their transforms put them, and all are joined. Faces of more corners become fans of
    triangles. Faces with fewer than three different points are dropped, and vertices that no face has. STL, which has
    no vertices of its own, is welded. Normals stay if the whole file has them.

    Files that the file names are read from its own folder and from folders in there alone (`files.read_beside`).

    Raises:
        ValueError: one line that names the file and what is wrong with it: it is not there, of another kind, damaged, a
            cloud of points, empty or too large, holds NaN, or something that would be lost in silence.
    """
    path = Path(path)
    kind = path.suffix.lower().lstrip(".")
    if kind not in _READERS:
        raise ValueError(f"{path.name} must end in one of {', '.join('.' + each for each in _READERS)}")
    try:
        parts = _READERS[kind](path)
        if not parts:
            raise ValueError("it holds no triangles")
        mesh = without_degenerate_faces(join(parts))
        check_extent(mesh)
    except Exception as error:  # whatever a reader makes of a stranger's bytes
        reason = (
            str(error) if type(error) is ValueError else f"it is damaged ({type(error).__name__}: {error})"
        )
        reason = " ".join(reason.split())[:300]
        raise ValueError(
            f"{path.name} is no {_NAMES[kind]} that can be read as one mesh: {reason}"
        ) from error
    return mesh
