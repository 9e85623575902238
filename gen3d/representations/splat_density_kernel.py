"""The Warp kernel of `splat_density`: each splat adds itself to the voxels about it."""

# Kernel annotations are array specifications for Warp, and kernel code is not Python: a type checker knows neither.
# pyright: reportInvalidTypeForm=false, reportOperatorIssue=false, reportIndexIssue=false
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

import warp as wp

wp.config.log_level = wp.LOG_WARNING
wp.set_module_options({"enable_backward": False, "fast_math": False})


@wp.kernel
def density_kernel(
    means: wp.array(dtype=wp.vec3),
    reach: wp.array(dtype=wp.vec3),
    to_own: wp.array(dtype=wp.mat33),
    peak: wp.array(dtype=float),
    grid: wp.array(dtype=float, ndim=3),
):
    splat = wp.tid()
    last = grid.shape[0] - 1
    scale = float(last) * 0.5
    centre = means[splat]
    low = (centre - reach[splat] + wp.vec3(1.0)) * scale
    high = (centre + reach[splat] + wp.vec3(1.0)) * scale
    far = wp.dot(reach[splat], reach[splat])
    if far == 0.0:
        return
    for i in range(wp.max(int(wp.ceil(low[0])), 0), wp.min(int(wp.floor(high[0])), last) + 1):
        for j in range(wp.max(int(wp.ceil(low[1])), 0), wp.min(int(wp.floor(high[1])), last) + 1):
            for k in range(wp.max(int(wp.ceil(low[2])), 0), wp.min(int(wp.floor(high[2])), last) + 1):
                point = wp.vec3(float(i), float(j), float(k)) / scale - wp.vec3(1.0)
                own = to_own[splat] * (point - centre)
                squared = wp.dot(own, own)
                if squared <= 16.0:
                    wp.atomic_add(grid, i, j, k, peak[splat] * wp.exp(-0.5 * squared))
