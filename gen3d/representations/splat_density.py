"""The density that splats add up to, from which a mesh is taken.

A splat of opacity o along a ray through its centre has the optical depth -ln(1 - o) there. As a Gaussian cloud of
standard deviation s along the ray it has that with the peak density -ln(1 - o) / (sqrt(2 pi) s); s is the geometric
mean of the three, so that the cloud is the same from all sides. So a surface level means what it means to every field:
optical density per unit length.
"""

from __future__ import annotations

import math

import torch
import warp as wp
from torch import Tensor

from gen3d.render.splat_types import MOST_ALPHA
from gen3d.render.warp_launch import launch
from gen3d.representations.splat_density_kernel import density_kernel

# So many standard deviations from its centre a splat ends.
REACH = 4.0


def peaks(lengths: Tensor, opacities: Tensor) -> Tensor:
    """Density `[N]` at the centres of splats of standard deviations `lengths [N, 3]` and `opacities [N]`."""
    depth = -torch.log1p(-opacities.clamp_max(MOST_ALPHA))
    return depth / (math.sqrt(2.0 * math.pi) * lengths.log().mean(dim=1).exp())


@torch.no_grad()
def densities(means: Tensor, lengths: Tensor, axes: Tensor, opacities: Tensor, resolution: int) -> Tensor:
    """`[R, R, R]` indexed [x, y, z], voxel 0 on -1 and voxel R - 1 on +1: the sum of all splats, each up to `REACH`.

    means, lengths: `[N, 3]`. axes: `[N, 3, 3]`, in the columns. On CUDA the order of the sum differs from run to run.
    """
    grid = means.new_zeros(resolution, resolution, resolution)
    to_own = (axes / lengths[:, None]).transpose(1, 2).contiguous()
    # Half the edges of the box around the ellipsoid.
    reach = REACH * (axes * lengths[:, None]).square().sum(dim=2).sqrt()
    floats = [(each.contiguous(), wp.vec3) for each in (means, reach)]
    launch(
        density_kernel,
        (len(means),),
        means.device,
        *floats,
        (to_own, wp.mat33),
        (peaks(lengths, opacities).contiguous(), wp.float32),
        (grid, wp.float32),
    )
    return grid
