"""Settings of `experiments.tasks.text_to_3d`."""

from __future__ import annotations

from dataclasses import dataclass, field

from experiments.run.backbones import BackboneConfig, check_prompt
from experiments.run.settings import FilePath, Settings, Text
from experiments.tasks.configs.turntable import TurntableConfig
from gen3d.distillation.base import Loss
from gen3d.priors.base import PriorConfig
from gen3d.recipe import check_order, check_recipe
from gen3d.render.renderer import RendererName, check_renderer
from gen3d.representations.base import RepresentationConfig
from gen3d.stages.base import Chosen, StageConfig


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """prompt: what to make. negative_prompt: what to keep away from. init_mesh: a closed mesh to begin with, GLB, glTF,
        OBJ, PLY or STL, in place of the representation's own beginning; it is put into the unit sphere, +Y up and
        facing +Z.

    prior: what a model thinks of pictures. representation: what the asset is while it is optimised. distillation: the
        loss of stages that distil. recipe: the stages, in order; they take these three where they name nothing else.
    renderer: what draws meshes, in the stages and for the pictures of the finished one: `warp`, `pytorch3d` (extra
        `pytorch3d`) or `reference`, plain torch for small pictures. Textures are baked by Warp.
    """

    prompt: Text
    negative_prompt: Text = ""
    init_mesh: FilePath | None = None
    backbone: BackboneConfig
    prior: PriorConfig
    representation: RepresentationConfig
    distillation: Loss | None = None
    recipe: dict[str, StageConfig]
    renderer: RendererName = "warp"
    turntable: TurntableConfig = field(default_factory=TurntableConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_prompt(self.prompt)
        check_renderer(self.renderer)
        self.prior.check_words(self.prompt, self.negative_prompt)
        check_order(self.recipe)
        check_recipe(self.recipe, self.chosen, init_mesh=self.init_mesh is not None)

    @property
    def chosen(self) -> Chosen:
        """What the stages take where they name nothing else."""
        return Chosen(
            prior=self.prior,
            representation=self.representation,
            distillation=self.distillation,
            negative_prompt=self.negative_prompt,
        )
