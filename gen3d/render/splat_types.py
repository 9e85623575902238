"""What the splat renderer and its reference share: the constants, and what a picture sees of the splats."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

# As in the reference implementation of arXiv 2308.04079.
LEAST_ALPHA = 1.0 / 255.0  # below it a splat is not seen at a pixel
MOST_ALPHA = 0.99
CLOSED = 1e-4  # what may still pass; a splat that would leave less ends the pixel's sum before it
LOW_PASS = 0.3  # square pixels, added to the variance of every splat in a picture
NEAR = 0.05  # distance before the camera up to which nothing is drawn


@dataclass(frozen=True, kw_only=True, slots=True)
class Projected:
    """N splats as V square pictures see them.

    centres: `[V, N, 2]` (column, row) in pixels, the first pixel's centre at 0.5. covariances: `[V, N, 3]` (xx, xy, yy)
    in square pixels, the low-pass included. opacities: `[V, N]` in [0, 1]. depth: `[V, N]` distance before the camera,
    by which they are sorted; at most `NEAR` for what is not drawn.
    """

    centres: Tensor
    covariances: Tensor
    opacities: Tensor
    depth: Tensor

    def conics(self) -> Tensor:
        """The inverses of the covariances, likewise `[V, N, 3]`."""
        xx, xy, yy = self.covariances.unbind(-1)
        determinant = (xx * yy - xy * xy)[..., None]
        return self.covariances.flip(-1) / determinant * self.covariances.new_tensor([1.0, -1.0, 1.0])

    def packed(self, features: Tensor) -> Tensor:
        """`[V, N, 6 + C]`: centre, conic, opacity and `features [V, N, C]` of each."""
        import torch

        return torch.cat([self.centres, self.conics(), self.opacities[..., None], features], dim=-1)
