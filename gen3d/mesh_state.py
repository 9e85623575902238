"""The mesh in a State: `mesh/vertices [N, 3]`, `mesh/faces [M, 3]`, `mesh/vertex_colors [N, 3]` and, once textured,
`mesh/uvs [N, 2]` and `mesh/texture [S, S, 3]`, and `mesh/shine [2]`, float64, how metallic and how rough; meanings as
in `gen3d.asset.Mesh`."""

from __future__ import annotations

import torch

from gen3d.asset import Material, Mesh
from gen3d.state import State

_GROUP = "mesh"


def save_mesh(state: State, mesh: Mesh) -> None:
    """In place of the mesh that is there."""
    tensors = {"vertices": mesh.vertices, "faces": mesh.faces}
    if mesh.vertex_colors is not None:
        tensors["vertex_colors"] = mesh.vertex_colors
    if mesh.uvs is not None:
        tensors["uvs"] = mesh.uvs
    if mesh.material.base_color_texture is not None:
        tensors["texture"] = mesh.material.base_color_texture
    shine = [mesh.material.metallic, mesh.material.roughness]
    tensors["shine"] = torch.tensor(shine, dtype=torch.float64, device=mesh.device)
    state.set_group(_GROUP, {name: tensor.detach() for name, tensor in tensors.items()})


def load_mesh(state: State) -> Mesh:
    """The state's mesh, sharing its tensors, without normals. ValueError where there is none."""
    tensors = state.group(_GROUP)
    if "vertices" not in tensors:
        raise ValueError("the state holds no mesh; run the extract stage before stages that work on one")
    metallic, roughness = tensors["shine"].tolist()
    return Mesh(
        vertices=tensors["vertices"],
        faces=tensors["faces"],
        vertex_colors=tensors.get("vertex_colors"),
        uvs=tensors.get("uvs"),
        material=Material(tensors.get("texture"), metallic=metallic, roughness=roughness),
    )
