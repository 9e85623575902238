"""What is known about a caption's scene, computed once and compared with as many meshes as wanted."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from diffusion.domains import Domain
from experiments.benchmark.config import ScoreConfig
from experiments.benchmark.retrieval import views
from experiments.world import Scene, scene_from_caption
from gen3d.asset import Material, Mesh
from gen3d.cameras import Cameras
from gen3d.domain_pictures import depth_picture, normals_picture
from gen3d.metrics import occupancy_grid, sample_surface


class Truth:
    """The scene of a caption in canonical proportions. World units, +Y up, facing +Z."""

    def __init__(self, caption: str, config: ScoreConfig) -> None:
        self.caption, self.config = caption, config
        self.scene: Scene = scene_from_caption(caption)

    @cached_property
    def occupancy(self) -> np.ndarray:
        """[R, R, R] bool: cell centres inside the scene."""
        return occupancy_grid(lambda points: self.scene.sdf(points) < 0.0, self.config.resolution)

    @cached_property
    def mesh(self) -> Mesh:
        """Marching cubes of the field, with the albedo at the vertices: the oracle."""
        return self.scene.mesh(self.config.mesh_resolution)

    @cached_property
    def views(self) -> Tensor:
        """[V, 3, S, S] shaded pictures of the oracle."""
        return views(self.mesh)

    @cached_property
    def other_proportions(self) -> Mesh:
        """The world's own mesh of the same caption in proportions that the caption leaves open just as well.

        What it scores is what a model that knows the world perfectly, but not which proportions are meant, may expect.
        """
        return scene_from_caption(self.caption, seed=0).mesh(self.config.mesh_resolution)

    @cached_property
    def points(self) -> Tensor:
        """[K, 3] points spread evenly over the true surface."""
        generator = torch.Generator().manual_seed(1)
        points, _, _ = sample_surface(self.mesh, self.config.num_points, generator=generator)
        # From the triangles onto the surface itself, so that the oracle is not compared with itself.
        return points - self.scene.normals(points) * self.scene.sdf(points)[:, None]


class TrueViews:
    """The world's own pictures of a caption's scene; a caption with a background clause is shown over it."""

    def __init__(self, caption: str, size: int) -> None:
        self.scene, self.size = scene_from_caption(caption), size

    def __call__(self, cameras: Cameras, domains: Sequence[Domain] | None = None) -> Tensor:
        """[V, 3, S, S], on the cameras' device. domains: what each shows, see `gen3d.domain_pictures`; None is
        colours."""
        on_cpu = cameras.to("cpu")
        seen = self.scene.render(on_cpu, self.size)
        images = seen.images
        if domains is not None:
            pictures = {
                "color": images,
                "depth": depth_picture(seen.depth, seen.mask, on_cpu),
                "normals": normals_picture(seen.normals, seen.mask),
            }
            images = torch.stack([pictures[domain][view] for view, domain in enumerate(domains)])
        return images.to(cameras.c2w.device)


def grey_sphere(radius: float = 0.6, num_rings: int = 48) -> Mesh:
    """The control that knows nothing: a closed mid-grey ball at the origin."""
    rows, columns = num_rings, 2 * num_rings
    theta = torch.linspace(0.0, torch.pi, rows + 1)[1:-1, None]
    phi = torch.arange(columns) * (2 * torch.pi / columns)
    ring = torch.stack(
        [theta.sin() * phi.sin(), theta.cos() * torch.ones_like(phi), theta.sin() * phi.cos()], dim=-1
    )
    poles = torch.tensor([[0.0, 1.0, 0.0], [0.0, -1.0, 0.0]])
    vertices = radius * torch.cat([ring.reshape(-1, 3), poles])
    here = torch.arange(columns)
    right = (here + 1) % columns
    top, bottom = len(vertices) - 2, len(vertices) - 1
    faces = [torch.stack([torch.full_like(here, top), here, right], dim=-1)]
    for row in range(rows - 2):
        a, b = row * columns + here, row * columns + right
        c, d = a + columns, b + columns
        faces += [torch.stack([a, c, b], dim=-1), torch.stack([b, c, d], dim=-1)]
    last = (rows - 2) * columns
    faces.append(torch.stack([last + here, torch.full_like(here, bottom), last + right], dim=-1))
    return Mesh(vertices=vertices, faces=torch.cat(faces), material=Material(base_color=(0.5, 0.5, 0.5)))
