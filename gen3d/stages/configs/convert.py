"""Settings of the stage that makes one representation of another."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from gen3d.representations.base import RepresentationConfig
from gen3d.stages.base import Beginning, Chosen, Given, StageConfig
from gen3d.stages.configs.checks import check_colors
from gen3d.surface import SurfaceConfig

if TYPE_CHECKING:
    from gen3d.stages.convert import Convert


@dataclass(frozen=True, kw_only=True)
class ConvertConfig(StageConfig):
    """Another representation of the same asset, which the stages after it work on.

    representation: the other one. through: `auto` makes it directly where it can take what there is, as one field can
        another, and otherwise by way of a mesh; `mesh` always by way of a mesh. surface: of that mesh.
    """

    uses: ClassVar[frozenset[str]] = frozenset({"representation"})
    reads: ClassVar[frozenset[str]] = frozenset({"representation"})
    makes: ClassVar[frozenset[str]] = frozenset({"representation"})

    name: Literal["convert"] = "convert"
    representation: RepresentationConfig
    through: Literal["auto", "mesh"] = "auto"
    surface: SurfaceConfig = field(default_factory=SurfaceConfig)

    @property
    def begins(self) -> Beginning | None:
        return "other"

    @property
    def levels(self) -> int:
        return 1

    def directly(self, source: RepresentationConfig) -> bool:
        """Whether no mesh is made in between."""
        return self.through == "auto" and self.representation.takes(source)

    def check(self, chosen: Chosen) -> None:
        check_colors("convert", self.representation)
        if not self.directly(chosen.representation):
            chosen.representation.check_level(self.surface.level)
        elif self.surface != SurfaceConfig():
            raise ValueError(
                "surface has no effect, for one representation is made of the other without a mesh in between; leave "
                "it out, or give through: mesh"
            )

    def build(self, given: Given) -> Convert:
        from gen3d.stages.convert import Convert

        return Convert(self, given)
