"""Settings of the representations; nothing here needs torch before `begin`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from diffusion.limits import check_range
from gen3d.limits import check_unused
from gen3d.representations.base import RepresentationConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gen3d.asset import Mesh
    from gen3d.representations.base import Representation
    from gen3d.representations.volume import Volume


@dataclass(frozen=True, kw_only=True)
class VolumeConfig(RepresentationConfig):
    """A voxel grid of density and colour.

    resolutions: voxels along an edge, from coarse to fine: one a round or milestone of the stage that fits it; the
        last holds on.
    num_samples: along a ray, in training; whole pictures take one a voxel.
    density_scale: raw density to optical density per unit length; larger makes sharper surfaces for the same learning
        rate.
    blob_radius, blob_strength: the initial raw density falls linearly from `blob_strength` at the centre through zero
        at `blob_radius` (Magic3D's blob).
    density_tv, color_tv: weights of the mean squared difference of neighbouring raw densities and colours (smooth
        fields), looked at in a random slab of the share tv_fraction of the grid.
    colors: `rgb`, or `latent` for the latents of the model that it is distilled from, `latent_channels` of them
        (Latent-NeRF, arXiv 2211.07600, and SJC): nothing is encoded then, and the colours of pictures and meshes are an
        affine map of them, fitted to the model's decoder.
    """

    is_field: ClassVar[bool] = True

    name: Literal["volume"] = "volume"
    resolutions: tuple[int, ...] = (48, 48, 48, 48, 64, 64)
    num_samples: int = 64
    density_scale: float = 50.0
    blob_radius: float = 0.5
    blob_strength: float = 0.5
    density_tv: float = 0.3
    color_tv: float = 0.01
    tv_fraction: float = 0.25
    colors: Literal["rgb", "latent"] = "rgb"
    latent_channels: int = 4

    def __post_init__(self) -> None:
        if not self.resolutions or list(self.resolutions) != sorted(self.resolutions):
            raise ValueError(
                f"volume resolutions must be at least one, from coarse to fine, got {list(self.resolutions)}"
            )
        if not 4 <= self.resolutions[0] <= self.resolutions[-1] <= 512:
            raise ValueError(
                f"volume resolutions must lie in 4..512 voxels, got {list(self.resolutions)}; 48 is a good start"
            )
        check_range(self, 1, 4096, "num_samples", of="volume")
        check_range(self, 1e-3, 1000, "density_scale", "blob_radius", "blob_strength", of="volume")
        check_range(self, 0, 1000, "density_tv", "color_tv", of="volume")
        check_range(self, 0, 1, "tv_fraction", ends="(]", of="volume")
        if not (self.density_tv or self.color_tv):
            check_unused("volume", self, ["tv_fraction"], "density_tv and color_tv are 0")
        check_range(self, 1, 64, "latent_channels", of="volume")
        if self.colors == "rgb":
            check_unused("volume", self, ["latent_channels"], "colors are rgb")

    @property
    def latents(self) -> bool:
        return self.colors == "latent"

    @property
    def num_channels(self) -> int:
        return self.latent_channels if self.latents else 3

    def begin(self, device: torch.device | str = "cpu") -> Volume:
        """The blob these settings describe."""
        from gen3d.representations.volume import blob

        return blob(self, device)

    def begin_from(self, mesh: Mesh, device: torch.device | str = "cpu") -> Volume:
        """The mesh's solid in voxels, with the colours of its surface."""
        from gen3d.representations.voxelize import volume_of_mesh

        return volume_of_mesh(mesh, self, device)

    def takes(self, source: RepresentationConfig) -> bool:
        return source.is_field and not self.latents

    def begin_as(self, source: Representation, device: torch.device | str = "cpu") -> Volume:
        """Density and colour of a field, at the voxels of the first resolution."""
        from gen3d.representations.base import Field
        from gen3d.representations.volume import sampled

        assert isinstance(source, Field)
        return sampled(source, self, device)

    def load(self, tensors: Mapping[str, Tensor]) -> Volume:
        """The volume with these tensors, `grid` and `cell_density`."""
        from gen3d.representations.volume import Volume

        missing = [name for name in ("grid", "cell_density") if name not in tensors]
        if missing:
            raise ValueError(f"a volume needs the tensors grid and cell_density; missing: {missing}")
        return Volume(
            tensors["grid"], self, cell_density=tensors["cell_density"], rgb_map=tensors.get("rgb_map")
        )

    def check_beginning(self, why: str) -> None:
        check_unused("representation", self, ["blob_radius", "blob_strength"], why)

    def check_levels(self, count: int) -> None:
        reached, beyond = self.resolutions[:count], self.resolutions[count:]
        if any(each != reached[-1] for each in beyond) and self.resolutions != type(self).resolutions:
            raise ValueError(
                f"representation resolutions are {list(self.resolutions)}, but the stages go through the first {count} "
                "alone; leave the rest out, or give a stage more rounds, render sizes or levels"
            )

    def check_level(self, level: float | None) -> None:
        if level is None:
            raise ValueError(
                "extract level must be a density, for a volume has no surface without one, such as 10"
            )
        most = 0.5 * self.density_scale  # so dense a carved volume is from the start
        if not level < most:
            raise ValueError(
                f"extract level must lie below half of representation.density_scale, {most:g}, got {level:g}: what a "
                "fit begins with would be empty"
            )
