"""A mesh fitted to views through the rasteriser; vertices may move, their connections stay."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gen3d.adam import Adam
from gen3d.mesh_state import load_mesh
from gen3d.optimize import Fit
from gen3d.regularisers import laplacian, normal_consistency
from gen3d.render.shading import render_mesh
from gen3d.stages.config import RefineConfig
from gen3d.state import State
from gen3d.topology import Topology, closed_edges, face_pairs
from gen3d.views import Views


class RefineMesh(Fit):
    """Fits the mesh to the latest views through the rasteriser; vertices may move, their connections stay."""

    name = "refine"

    # An eps larger than for a grid: a vertex seen for the first time must not jump by a full step on a tiny gradient.
    optimizer = Adam(eps=1e-6)

    def __init__(self, config: RefineConfig) -> None:
        self.config, self.num_steps = config, config.num_steps

    def start(self, state: State, generator: torch.Generator) -> None:
        mesh = load_mesh(state)
        topology = Topology.of(mesh.vertices, mesh.faces)
        state["mesh/weld"], state["mesh/edges"] = topology.weld, topology.edges
        state["mesh/face_pairs"] = face_pairs(mesh.faces)

    def rates(self, state: State, step: int) -> dict[str, float]:
        decay = 0.5 * (1.0 + math.cos(math.pi * step / self.num_steps))
        return {
            "mesh/vertices": self.config.vertex_rate * decay,
            "mesh/vertex_colors": self.config.color_rate * decay,
        }

    def after(self, state: State, step: int, generator: torch.Generator) -> dict[str, float]:
        state["mesh/vertex_colors"].clamp_(0.0, 1.0)
        return {}

    def losses(self, state: State, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        config, views = self.config, Views.load(state)
        count = min(config.views_per_step, len(views))
        chosen = torch.randperm(len(views), generator=generator, device=generator.device)[:count].to(
            views.images.device
        )
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
        wanted = views.normals
        pairs = state["mesh/face_pairs"]
        edges = closed_edges(mesh.faces)
        length = (mesh.vertices[edges[:, 0]] - mesh.vertices[edges[:, 1]]).detach().norm(dim=-1).mean()
        losses = {
            "color": (rendered.images - views.images[chosen]).square().mean(),
            "mask": config.mask * (rendered.mask - views.masks[chosen]).square().mean(),
            "laplacian": config.laplacian * laplacian(mesh.vertices, edges) / length,
            "consistency": config.normal_consistency * normal_consistency(mesh.vertices, mesh.faces, pairs),
        }
        if wanted is not None and config.normals:
            known = (wanted[chosen] != 0.0).any(dim=1, keepdim=True)
            missed = known * (rendered.normals - wanted[chosen]).square()
            losses["normals"] = config.normals * missed.sum(dim=1).mean()
        return losses
