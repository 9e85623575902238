"""Settings of the representations; nothing here needs torch before `build`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from gen3d.representations.volume import Volume


@dataclass(frozen=True, kw_only=True)
class VolumeConfig:
    """How a volume begins.

    resolution: voxels along an edge. density_scale: raw density to optical density per unit length; larger makes
    sharper surfaces for the same learning rate. blob_radius, blob_strength: the initial raw density falls linearly
    from ``blob_strength`` at the centre through zero at ``blob_radius`` (Magic3D's blob).
    """

    resolution: int = 48
    density_scale: float = 50.0
    blob_radius: float = 0.5
    blob_strength: float = 0.5

    def __post_init__(self) -> None:
        if not 4 <= self.resolution <= 512:
            raise ValueError(
                f"volume resolution must lie in 4..512 voxels, got {self.resolution}; 48 is a good start"
            )
        for name in ("density_scale", "blob_radius", "blob_strength"):
            if not 1e-3 <= getattr(self, name) <= 1000:
                raise ValueError(f"volume {name} must lie in 0.001..1000, got {getattr(self, name):g}")

    def build(self, device: torch.device | str = "cpu") -> Volume:
        """The blob these settings describe."""
        from gen3d.representations.volume import blob

        return blob(self, device)
