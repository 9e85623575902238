"""Real spherical harmonics up to degree 3, in the order and with the signs of 3D Gaussian splatting's files."""

from __future__ import annotations

import torch
from torch import Tensor

FIRST = 0.28209479177387814  # of degree 0: 1 / (2 sqrt(pi))
_SECOND = 0.4886025119029199
_THIRD = (1.0925484305920792, 0.31539156525252005, 0.5462742152960396)
_FOURTH = (
    0.5900435899266435, 2.890611442640554, 0.4570457994644658, 0.3731763325901154, 1.445305721320277,
)  # fmt: skip
# By which each coefficient is multiplied when the world turns by half a turn about X: (x, y, z) -> (x, -y, -z).
HALF_TURN_ABOUT_X = (1, -1, -1, 1, -1, 1, 1, -1, 1, -1, 1, -1, -1, 1, -1, 1)


def basis(directions: Tensor, degree: int) -> Tensor:
    """`[..., (degree + 1)^2]` at unit `directions [..., 3]`."""
    x, y, z = directions.unbind(-1)
    values = [torch.full_like(x, FIRST)]
    if degree >= 1:
        values += [-_SECOND * y, _SECOND * z, -_SECOND * x]
    if degree >= 2:
        a, b, c = _THIRD
        values += [a * x * y, -a * y * z, b * (2 * z * z - x * x - y * y), -a * x * z, c * (x * x - y * y)]
    if degree >= 3:
        a, b, c, d, e = _FOURTH
        values += [
            -a * y * (3 * x * x - y * y), b * x * y * z, -c * y * (4 * z * z - x * x - y * y),
            d * z * (2 * z * z - 3 * x * x - 3 * y * y), -c * x * (4 * z * z - x * x - y * y), e * z * (x * x - y * y),
            -a * x * (x * x - 3 * y * y),
        ]  # fmt: skip
    return torch.stack(values, dim=-1)
