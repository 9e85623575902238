"""From a grid of densities or distances to a clean, closed triangle mesh.

Axes: grid[i, j, k] is the value at x_i, y_j, z_k; the R samples of an axis run from -bounds to +bounds, both
included. World: right-handed, +Y up; faces wind counter-clockwise seen from outside.
"""

from __future__ import annotations

import warnings
from typing import Literal

import fast_simplification
import manifold3d
import numpy as np
import torch
from scipy import ndimage
from scipy.sparse import csgraph
from skimage import measure
from torch import Tensor

from gen3d.asset import Mesh
from gen3d.topology import adjacency, directed_edges, weld_index

_EMPTY_HINT = "Try a lower `level`, more optimisation steps or another seed"


class EmptySurfaceError(ValueError):
    """The grid holds no surface at the wanted level."""


# ---------------------------------------------------------------------------------------------- topology


def _is_closed(faces: np.ndarray, num_vertices: int) -> bool:
    if len(faces) == 0:
        return False
    start, end = directed_edges(torch.from_numpy(faces.astype(np.int64))).numpy().T
    if (start == end).any():
        return False
    forward, backward = np.sort(start * num_vertices + end), np.sort(end * num_vertices + start)
    return bool((np.diff(forward) > 0).all() and np.array_equal(forward, backward))


def merge_positions(mesh: Mesh) -> Mesh:
    """Weld vertices at exactly equal positions; UVs and the texture are dropped, colours and normals averaged.

    A UV seam repeats vertices, in GLB files too, so a textured mesh is judged closed after this.
    """
    _, first, inverse = np.unique(
        mesh.vertices.detach().cpu().numpy() + np.float32(0.0), axis=0, return_index=True, return_inverse=True
    )
    # np.unique sorts by position; keep the order of first appearance instead.
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    index = torch.from_numpy(rank[inverse.reshape(-1)]).to(mesh.device)
    keep = torch.from_numpy(first[order]).to(mesh.device)

    def average(values: Tensor | None) -> Tensor | None:
        if values is None:
            return None
        total = values.new_zeros(len(keep), values.shape[1]).index_add_(0, index, values)
        return total / torch.bincount(index, minlength=len(keep))[:, None]

    normals = average(mesh.normals)
    if normals is not None:
        normals = torch.nn.functional.normalize(normals, dim=-1)
    colors = average(mesh.vertex_colors)
    material = mesh.material
    if material.base_color_texture is not None:
        material = type(material)(None, material.base_color, material.metallic, material.roughness)
    return Mesh(mesh.vertices[keep], index[mesh.faces], normals, None, colors, material)


def is_watertight(mesh: Mesh) -> bool:
    """True if every edge joins exactly two faces of opposite direction, positions welded first."""
    welded = merge_positions(mesh)
    return _is_closed(welded.faces.cpu().numpy(), welded.num_vertices)


def _component_labels(faces: np.ndarray, num_vertices: int) -> tuple[int, np.ndarray]:
    """Number of connected pieces and the piece of each face."""
    graph = adjacency(torch.from_numpy(faces), num_vertices)
    _, labels = csgraph.connected_components(graph, directed=False)
    used, piece = np.unique(labels[faces[:, 0]], return_inverse=True)
    return len(used), piece.reshape(-1)


def num_components(mesh: Mesh) -> int:
    """Number of connected pieces, positions welded first."""
    welded = merge_positions(mesh)
    if welded.num_faces == 0:
        return 0
    return _component_labels(welded.faces.cpu().numpy(), welded.num_vertices)[0]


def volume(mesh: Mesh) -> float:
    """Signed volume in cubic world units; positive for a closed mesh that winds outwards."""
    corners = mesh.vertices.detach().double()[mesh.faces]
    return float((corners[:, 0] * torch.linalg.cross(corners[:, 1], corners[:, 2])).sum() / 6.0)


def _drop_unused_vertices(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    used = np.zeros(len(vertices), dtype=bool)
    used[faces] = True
    return vertices[used], (np.cumsum(used) - 1)[faces]


# --------------------------------------------------------------------------------------------- extraction


def stable_level(grid: np.ndarray) -> float:
    """The level at which the enclosed volume changes least, for a grid of non-negative densities.

    The volume inside a level is followed over levels spaced evenly in the logarithm, from 5 % to 70 % of the
    densest part. A clear object has a plateau there: its density falls off within a voxel or two. The level in
    the middle of the flattest stretch (a factor of two wide) is taken.
    """
    positive = grid[grid > 0.0]
    if positive.size == 0:
        raise EmptySurfaceError(
            f"the density grid has no positive value, so there is no surface. {_EMPTY_HINT}"
        )
    # The densest 0.05 % of the whole grid: robust to single spikes, yet defined for small objects.
    rank = max(1, min(positive.size, round(grid.size * 5e-4)))
    dense = float(np.partition(positive, positive.size - rank)[positive.size - rank])
    levels = dense * np.geomspace(0.05, 0.7, 48)
    inside = positive.size - np.searchsorted(np.sort(positive), levels)
    log_volume = np.log(np.maximum(inside, 1))
    window = round(np.log(2.0) / np.log(levels[1] / levels[0]))
    change = log_volume[:-window] - log_volume[window:]
    return float(levels[int(np.argmin(change)) + window // 2])


def _fill_cavities(field: np.ndarray, level: float) -> np.ndarray:
    inside = field > level
    cavity = np.asarray(ndimage.binary_fill_holes(inside)) & ~inside
    # Mirrored at the level, cavity voxels are inside like their neighbours, so no surface is left there.
    return np.where(cavity, np.maximum(2.0 * level - field, np.nextafter(np.float32(level), np.inf)), field)


def _off_the_level(field: np.ndarray) -> np.ndarray:
    """Push samples that are (nearly) zero away from it, by a thousandth of a voxel.

    A sample at the level makes triangles of no area, whose corners meet in one point.
    """
    steepest = ndimage.maximum_filter(np.abs(field), footprint=ndimage.generate_binary_structure(3, 1))
    least = np.maximum(1e-3 * steepest, np.float32(1e-30))
    return np.where(np.abs(field) < least, np.where(field > 0.0, least, -least), field)


def _keep_components(
    vertices: np.ndarray,
    faces: np.ndarray,
    max_components: int | None,
    min_fraction: float,
    min_extent: float = 0,
) -> tuple[np.ndarray, np.ndarray]:
    count, piece = _component_labels(faces, len(vertices))
    corners = vertices[faces].astype(np.float64)
    signed = np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6.0
    volumes = np.bincount(piece, weights=signed, minlength=count)
    order = np.argsort(-volumes, kind="stable")
    solids = [index for index in order if volumes[index] >= max(min_fraction * volumes[order[0]], 1e-12)]
    if min_extent > 0.0:
        extents = [np.linalg.norm(np.ptp(vertices[faces[piece == index]], axis=(0, 1))) for index in solids]
        solids = [i for i, extent in zip(solids, extents, strict=True) if extent >= min_extent * extents[0]]
    keep = solids if max_components is None else solids[:max_components]
    # Walls of cavities have negative volume; they go with the solid around them.
    boxes = (
        {index: vertices[np.unique(faces[piece == index])] for index in keep} if (volumes < 0).any() else {}
    )
    for index in np.flatnonzero(volumes < 0):
        wall = vertices[np.unique(faces[piece == index])]
        for solid in boxes.values():
            if (solid.min(0) <= wall.min(0)).all() and (solid.max(0) >= wall.max(0)).all():
                keep = [*keep, index]
                break
    return _drop_unused_vertices(vertices, faces[np.isin(piece, keep)])


def extract_mesh(
    grid: np.ndarray | Tensor,
    *,
    level: float | Literal["auto"] = "auto",
    inside: Literal["above", "below"] = "above",
    bounds: float = 1.0,
    max_components: int | None = None,
    min_fraction: float = 0.02,
    fill_cavities: bool = True,
) -> Mesh:
    """The closed surface of a grid by marching cubes.

    grid: [X, Y, Z] densities (inside="above" the level) or signed distances (inside="below").
    level: "auto" is `stable_level` for densities and 0 for distances.
    bounds: half the side of the cube that the grid spans, in world units.
    max_components, min_fraction: keep at most so many pieces, and only those with at least this fraction of the
    largest piece's volume.
    fill_cavities: close hollows that no path joins to the outside.
    Returns a watertight Mesh without normals. An empty surface raises EmptySurfaceError (a ValueError).
    """
    field = np.asarray(grid.detach().cpu().numpy() if isinstance(grid, Tensor) else grid, dtype=np.float32)
    if field.ndim != 3 or min(field.shape) < 2:
        raise ValueError(
            f"grid must have shape [X, Y, Z] with at least 2 samples an axis, got {list(field.shape)}"
        )
    if not np.isfinite(field).all():
        raise ValueError("grid holds NaN or Inf; every value must be finite")
    if inside not in ("above", "below"):
        raise ValueError(f"inside must be 'above' or 'below', got {inside!r}")
    if max_components is not None and max_components < 1:
        raise ValueError(f"max_components must be at least 1 or None, got {max_components}")
    if level == "auto":
        level = stable_level(field) if inside == "above" else 0.0
    level = float(level)
    if inside == "below":
        field, level = -field, -level
    level = float(np.float32(level))
    if not (field > level).any():
        raise EmptySurfaceError(
            f"no grid value lies inside level {level:.4g} (the values run from {field.min():.4g} to "
            f"{field.max():.4g}), so the surface is empty. {_EMPTY_HINT}"
        )
    # A border of outside values closes every surface that would run out of the grid.
    outside = min(float(field.min()), level - max(abs(level), 1e-3))
    field = np.pad(field, 1, constant_values=outside)
    if fill_cavities:
        field = _fill_cavities(field, level)
    vertices, faces, _, _ = measure.marching_cubes(
        _off_the_level(field - np.float32(level)), 0.0, gradient_direction="ascent"
    )
    spacing = 2.0 * bounds / (np.array(grid.shape, dtype=np.float64) - 1.0)
    vertices = ((vertices.astype(np.float64) - 1.0) * spacing - bounds).astype(np.float32)
    vertices, faces = _keep_components(vertices, faces, max_components, min_fraction)
    if len(faces) == 0:
        raise EmptySurfaceError(f"the surface at level {level:.4g} encloses no volume. {_EMPTY_HINT}")
    return Mesh(torch.from_numpy(vertices), torch.from_numpy(faces.astype(np.int64)))


# ---------------------------------------------------------------------------------------------- clean-up


def drop_small_pieces(mesh: Mesh, *, min_fraction: float, min_extent: float) -> Mesh:
    """The mesh without pieces below these fractions of the largest one's volume and of its bounding box's diagonal.

    Decimation can tear slivers off. UVs, normals and colours are dropped.
    """
    vertices, faces = mesh.vertices.detach().cpu().numpy(), mesh.faces.cpu().numpy()
    vertices, faces = _keep_components(vertices, faces, None, min_fraction, min_extent)
    return Mesh(torch.from_numpy(vertices), torch.from_numpy(faces), material=mesh.material).to(mesh.device)


def decimate(mesh: Mesh, target_faces: int) -> Mesh:
    """Quadric edge collapse down to about `target_faces`, keeping a closed mesh closed.

    Collapses can fold thin or bumpy parts onto themselves. Then manifold3d's simplification does the work, with a
    tolerance raised until the target is reached; it is coarser, but cannot tear. If that fails too, or nothing would
    be left, the mesh comes back as it was, with a warning. A surface that is not closed is welded first, and a face
    that is there several times counts once; one with a back of its own keeps both. Normals and colours are dropped
    (the topology is new).
    """
    if target_faces < 4:
        raise ValueError(f"target_faces must be at least 4, got {target_faces}")
    if mesh.uvs is not None:
        raise ValueError("decimate works on meshes without uvs. Decimate first, then unwrap")
    if mesh.num_faces <= target_faces:
        return mesh
    vertices = np.ascontiguousarray(mesh.vertices.detach().cpu().numpy())
    faces = mesh.faces.cpu().numpy()
    closed = _is_closed(faces, len(vertices))
    if not closed:
        mesh = merge_positions(mesh)
        mesh = mesh.replace(faces=_without_copies(mesh.faces))
        if mesh.num_faces <= target_faces:
            return mesh
        vertices, faces = np.ascontiguousarray(mesh.vertices.detach().cpu().numpy()), mesh.faces.cpu().numpy()
        closed = _is_closed(faces, len(vertices))
    collapsed = fast_simplification.simplify(vertices, faces.astype(np.int32), target_count=target_faces)
    two_sided = not closed and bool(_on_same_vertices(faces).any())
    result = _repair(np.asarray(collapsed[0]), np.asarray(collapsed[1]).astype(np.int64), keep_fins=two_sided)
    if closed and (len(result[1]) > 1.1 * target_faces or not _welds_closed(*result)):
        result = _simplify_manifold(vertices, faces, target_faces)
    if len(result[1]) == 0 or (closed and not _welds_closed(*result)):
        warnings.warn(
            f"decimating {len(faces)} faces to {target_faces} would tear the surface; keeping all faces",
            stacklevel=2,
        )
        return mesh
    return Mesh(
        torch.from_numpy(result[0].astype(np.float32)).to(mesh.device),
        torch.from_numpy(result[1]).to(mesh.device),
        material=mesh.material,
    )


def _simplify_manifold(
    vertices: np.ndarray, faces: np.ndarray, target_faces: int
) -> tuple[np.ndarray, np.ndarray]:
    solid = manifold3d.Manifold(manifold3d.Mesh(vertices, faces.astype(np.uint32)))
    size = float((vertices.max(0) - vertices.min(0)).max())
    tolerance = 5e-4 * size
    while solid.num_tri() > target_faces and tolerance < 0.1 * size:
        solid = solid.simplify(tolerance)
        tolerance *= 1.3
    simple = solid.to_mesh()
    new_vertices = np.asarray(simple.vert_properties)[:, :3]
    new_faces = np.asarray(simple.tri_verts).astype(np.int64)
    return _part_twins(new_vertices, new_faces), new_faces


def _part_twins(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Move vertices that share a position a thousandth of the way to their neighbours.

    Where two sheets touch, a manifold has one vertex for each; a file format that welds positions would join them.
    """
    _, group, count = np.unique(vertices, axis=0, return_inverse=True, return_counts=True)
    twin = count[group.reshape(-1)] > 1
    total, degree = np.zeros(vertices.shape), np.zeros((len(vertices), 1))
    for start, end in ((0, 1), (1, 2), (2, 0)):
        np.add.at(total, faces[:, start], vertices[faces[:, end]])
        np.add.at(degree, faces[:, start], 1.0)
    moved = vertices + 1e-3 * (total / np.maximum(degree, 1.0) - vertices)
    return np.where(twin[:, None], moved, vertices).astype(np.float32)


def _without_copies(faces: Tensor) -> Tensor:
    """`faces [M, 3]`, in their order, with each one that is there several times (from whichever corner) once."""
    corners = faces.cpu().numpy()
    start = corners.argmin(axis=1)[:, None]
    turned = np.take_along_axis(corners, (start + np.arange(3)) % 3, axis=1)
    _, first = np.unique(turned, axis=0, return_index=True)
    return faces[torch.from_numpy(np.sort(first)).to(faces.device)]


def _on_same_vertices(faces: np.ndarray) -> np.ndarray:
    """Which faces share all three vertices with another: `[M]` bool."""
    _, group, count = np.unique(np.sort(faces, axis=1), axis=0, return_inverse=True, return_counts=True)
    return count[group.reshape(-1)] > 1


def _repair(
    vertices: np.ndarray, faces: np.ndarray, *, keep_fins: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Remove collapsed faces, and pairs of faces on the same three vertices (fins without thickness)."""
    while True:
        keep = (faces != np.roll(faces, -1, axis=1)).all(axis=1)
        if not keep_fins:
            keep &= ~_on_same_vertices(faces)
        if keep.all():
            return _drop_unused_vertices(vertices, faces)
        faces = faces[keep]


def _welds_closed(vertices: np.ndarray, faces: np.ndarray) -> bool:
    return is_watertight(Mesh(torch.from_numpy(vertices.astype(np.float32)), torch.from_numpy(faces)))


def smooth(mesh: Mesh, num_iterations: int = 10, *, shrink: float = 0.5, inflate: float = -0.53) -> Mesh:
    """Taubin smoothing: alternating positive and negative Laplacian steps, which keep the volume nearly as it is.

    shrink in (0, 1); inflate slightly stronger and negative. Normals are dropped, since they no longer fit.
    """
    if num_iterations < 0:
        raise ValueError(f"num_iterations must not be negative, got {num_iterations}")
    if not (0.0 < shrink < 1.0 and -1.0 < inflate < 0.0):
        raise ValueError(f"need 0 < shrink < 1 and -1 < inflate < 0, got {shrink} and {inflate}")
    graph = adjacency(mesh.faces, mesh.num_vertices)
    degree = np.maximum(np.asarray(graph.sum(axis=1)).reshape(-1, 1), 1.0)
    vertices = mesh.vertices.detach().cpu().numpy().astype(np.float64)
    for _ in range(num_iterations):
        for factor in (shrink, inflate):
            vertices = vertices + factor * (graph @ vertices / degree - vertices)
    return mesh.replace(vertices=torch.from_numpy(vertices.astype(np.float32)).to(mesh.device), normals=None)


def vertex_normals(
    vertices: Tensor, faces: Tensor, *, weighting: Literal["angle", "area"] = "angle"
) -> Tensor:
    """Smooth unit normals [N, 3] of vertices [N, 3] and faces [M, 3]. Differentiable in the vertices.

    Each face counts by its angle at the vertex, or by its area (a little cheaper). A vertex without a proper face
    gets +Y.
    """
    corners = vertices[faces]
    cross = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total = torch.zeros_like(vertices)
    if weighting == "area":
        for corner in range(3):
            total = total.index_add(0, faces[:, corner], cross)
    elif weighting == "angle":
        # The squared length is floored before the root: its slope at zero is infinite.
        length = cross.square().sum(-1).clamp_min(1e-30).sqrt()
        unit = cross / length[:, None]
        for corner in range(3):
            first = corners[:, (corner + 1) % 3] - corners[:, corner]
            second = corners[:, (corner + 2) % 3] - corners[:, corner]
            angle = torch.atan2(length, (first * second).sum(-1))
            total = total.index_add(0, faces[:, corner], unit * angle[:, None])
    else:
        raise ValueError(f"weighting must be 'angle' or 'area', got {weighting!r}")
    squared = total.square().sum(-1, keepdim=True)
    normals = total / squared.clamp_min(1e-30).sqrt()
    up = torch.tensor([0.0, 1.0, 0.0], device=vertices.device).expand_as(normals)
    return torch.where(squared > 1e-28, normals, up)


def with_normals(mesh: Mesh) -> Mesh:
    """The mesh with smooth, angle-weighted normals, continuous across UV seams (positions welded)."""
    weld = weld_index(mesh.vertices)
    return mesh.replace(normals=vertex_normals(mesh.vertices.detach(), weld[mesh.faces])[weld])
