"""From a volume to a mesh, refined through the rasteriser.

Tensors in the state: ``mesh/vertices [N, 3]``, ``mesh/faces [M, 3]``, ``mesh/vertex_colors [N, 3]`` and, once
textured, ``mesh/uvs [N, 2]`` and ``mesh/texture [S, S, 3]``; meanings as in ``gen3d.asset.Mesh``. While it is
refined, its topology as well: ``mesh/weld [N]``, ``mesh/edges [E, 4]``, ``mesh/face_pairs [E, 2]``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gen3d import meshing
from gen3d.asset import Material, Mesh
from gen3d.bridging import bridge_pieces
from gen3d.distillation.regularisers import laplacian, normal_consistency
from gen3d.render.shading import render_mesh
from gen3d.representations.hull import look_up
from gen3d.representations.volume import Volume
from gen3d.stages.config import ExtractConfig, RefineConfig
from gen3d.stages.fit import load_volume
from gen3d.stages.views import Views
from gen3d.state import State, adam_step
from gen3d.topology import Topology, closed_edges, face_pairs

# Share of views that may see through a point without its being empty: silhouettes of a model do not quite agree.
_SEEN_THROUGH = 0.1


def save_mesh(state: State, mesh: Mesh) -> None:
    tensors = {"vertices": mesh.vertices, "faces": mesh.faces}
    if mesh.vertex_colors is not None:
        tensors["vertex_colors"] = mesh.vertex_colors
    if mesh.uvs is not None:
        tensors["uvs"] = mesh.uvs
    if mesh.material.base_color_texture is not None:
        tensors["texture"] = mesh.material.base_color_texture
    state.set_group("mesh", {name: tensor.detach() for name, tensor in tensors.items()})


def load_mesh(state: State) -> Mesh:
    """The state's mesh, sharing its tensors, without normals."""
    tensors = state.group("mesh")
    if "vertices" not in tensors:
        raise ValueError("the state holds no mesh; run the extract stage before stages that work on one")
    return Mesh(
        vertices=tensors["vertices"],
        faces=tensors["faces"],
        vertex_colors=tensors.get("vertex_colors"),
        uvs=tensors.get("uvs"),
        material=Material(base_color_texture=tensors.get("texture")),
    )


class ExtractMesh:
    """``volume/...`` to ``mesh/...``, coloured by the volume."""

    name = "extract"
    num_steps = 1

    def __init__(self, config: ExtractConfig) -> None:
        self.config = config

    def start(self, state: State, generator: torch.Generator) -> None:
        state.drop("mesh")

    def step(self, state: State, step: int, generator: torch.Generator) -> dict[str, float]:
        config, volume = self.config, load_volume(state)
        grid = volume.density_grid(max(config.resolution, volume.resolution))
        level, views = volume.raw_of(config.level), Views.load(state)
        if config.max_gap:
            grid = bridge_pieces(grid, level, lambda points: _unseen(points, views), max_gap=config.max_gap)
        mesh = meshing.extract_mesh(grid, level=level, min_fraction=config.min_fraction)
        mesh = meshing.decimate(meshing.smooth(mesh, config.smooth), config.target_faces)
        mesh = meshing.drop_small_pieces(mesh, min_fraction=config.min_fraction, min_extent=config.min_extent)
        colors = surface_color(volume, mesh.vertices.to(volume.device))
        save_mesh(
            state, Mesh(mesh.vertices.to(volume.device), mesh.faces.to(volume.device), vertex_colors=colors)
        )
        return {"loss": 0.0, "vertices": float(mesh.num_vertices), "faces": float(mesh.num_faces)}


def _unseen(points: Tensor, views: Views) -> Tensor:
    """Which of ``points [K, 3]`` hardly any view sees to be empty: ``[K]`` bool."""
    empty = look_up(views.masks, views.cameras, points.to(views.masks.device))[:, 0] < 0.5
    return empty.float().mean(dim=0) <= _SEEN_THROUGH


def surface_color(volume: Volume, points: Tensor) -> Tensor:
    """Colours ``[K, 3]`` of surface points, read half a voxel inside: outside, colour was never seen."""
    inward = -volume.normals_at(points).detach() * (1.0 / (volume.resolution - 1))
    return volume.color_at(points + inward)


class RefineMesh:
    """Fits the mesh to the latest views through the rasteriser; vertices may move, their connections stay."""

    name = "refine"

    def __init__(self, config: RefineConfig) -> None:
        self.config = config

    @property
    def num_steps(self) -> int:
        return self.config.num_steps

    def start(self, state: State, generator: torch.Generator) -> None:
        state.drop("adam")
        mesh = load_mesh(state)
        topology = Topology.of(mesh.vertices, mesh.faces)
        state["mesh/weld"], state["mesh/edges"] = topology.weld, topology.edges
        state["mesh/face_pairs"] = face_pairs(mesh.faces)

    def step(self, state: State, step: int, generator: torch.Generator) -> dict[str, float]:
        config, views = self.config, Views.load(state)
        count = min(config.views_per_step, len(views))
        chosen = torch.randperm(len(views), generator=generator, device=generator.device)[:count].to(
            views.images.device
        )
        for name in ("vertices", "vertex_colors"):
            state[f"mesh/{name}"].requires_grad_(True)
        mesh = load_mesh(state)
        height, width = views.images.shape[-2:]
        rendered = render_mesh(
            mesh,
            views.cameras[chosen],
            height,
            width,
            background=views.backgrounds[chosen],
            mode="albedo",
            topology=Topology(state["mesh/weld"], state["mesh/edges"]),
        )
        pairs = state["mesh/face_pairs"]
        edges = closed_edges(mesh.faces)
        length = (mesh.vertices[edges[:, 0]] - mesh.vertices[edges[:, 1]]).detach().norm(dim=-1).mean()
        losses = {
            "color": (rendered.images - views.images[chosen]).square().mean(),
            "mask": config.mask * (rendered.mask - views.masks[chosen]).square().mean(),
            "laplacian": config.laplacian * laplacian(mesh.vertices, edges) / length,
            "normals": config.normal_consistency * normal_consistency(mesh.vertices, mesh.faces, pairs),
        }
        loss = torch.stack(list(losses.values())).sum()
        loss.backward()
        decay = 0.5 * (1.0 + math.cos(math.pi * step / config.num_steps))
        rates = {"mesh/vertices": config.vertex_rate * decay, "mesh/vertex_colors": config.color_rate * decay}
        # Larger than for the grid: a vertex seen for the first time must not jump by a full step on a tiny gradient.
        adam_step(state, rates, eps=1e-6)
        with torch.no_grad():
            state["mesh/vertex_colors"].clamp_(0.0, 1.0)
        return {
            "loss": float(loss.detach()),
            **{name: float(value.detach()) for name, value in losses.items()},
        }
