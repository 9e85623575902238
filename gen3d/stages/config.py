"""Settings of the stages, by stage in `gen3d.stages.configs`; nothing here needs torch before `build`."""

from gen3d.stages.configs.convert import ConvertConfig
from gen3d.stages.configs.distill import DistillConfig, Guidance, ShadingConfig, check_wants
from gen3d.stages.configs.fit import FitConfig, FittingConfig
from gen3d.stages.configs.mesh import ExtractConfig, RedrawConfig, RefineConfig, TextureConfig
from gen3d.stages.configs.picture import PictureConfig
from gen3d.stages.configs.reconstruct import ReconstructConfig

__all__ = [
    "ConvertConfig",
    "DistillConfig",
    "ExtractConfig",
    "FitConfig",
    "FittingConfig",
    "Guidance",
    "PictureConfig",
    "ReconstructConfig",
    "RedrawConfig",
    "RefineConfig",
    "ShadingConfig",
    "TextureConfig",
    "check_wants",
]
