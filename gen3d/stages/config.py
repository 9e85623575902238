"""Settings of the stages and of the recipe made of them; nothing here needs torch before `build`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Literal

from gen3d.distillation.config import AnnealingConfig, Weighting
from gen3d.limits import check_elevations, check_fovy, check_mask_threshold
from gen3d.representations.config import VolumeConfig

if TYPE_CHECKING:
    import torch

    from diffusion.backbone import Backbone
    from gen3d.stages.distill import Distill
    from gen3d.stages.mesh import ExtractMesh, RefineMesh
    from gen3d.stages.multiview import MultiviewReconstruction
    from gen3d.stages.redraw import Redraw
    from gen3d.stages.texture import Texture
    from gen3d.views import ViewProvider


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """Diffusion settings for views: steps over the whole schedule, standard guidance scale, rescale in [0, 1].

    background: asked for in words; "auto" chooses one that the prompt's colours stand out from, "" asks for none.
    joint_views: how many views see each other. A multiview model's attention takes more than it was trained with, and
    views of one set agree far better than those of two.
    """

    num_steps: int = 20
    guidance_scale: float = 2.5
    guidance_rescale: float = 0.5
    negative_prompt: Annotated[str, "text"] = ""
    background: Annotated[str, "text"] = "auto"
    joint_views: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.num_steps <= 1000:
            raise ValueError(f"sampling num_steps must lie in 1..1000, got {self.num_steps}")
        if not 0.0 <= self.guidance_scale <= 1000.0:
            raise ValueError(
                f"sampling guidance_scale must lie in 0..1000, got {self.guidance_scale:g}; 1 is no guidance"
            )
        if self.joint_views < 1:
            raise ValueError(f"sampling joint_views must be at least 1, got {self.joint_views}")
        if not 0.0 <= self.guidance_rescale <= 1.0:
            raise ValueError(f"sampling guidance_rescale must lie in 0..1, got {self.guidance_rescale}")


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How a volume is fitted to views.

    Per step: num_rays rays of num_samples samples. Losses, as weights beside the mean squared colour error: mask
    (opacity against the silhouettes), distortion (no fog: the light of a ray comes from one place), density_tv and
    color_tv (smooth fields). learning_rate falls to learning_rate * learning_rate_decay over a fit (all
    rounds together), by a constant factor a step. Empty cells are found anew every refresh_every steps.
    """

    num_rays: int = 1024
    num_samples: int = 64
    learning_rate: float = 0.1
    learning_rate_decay: float = 0.1
    mask: float = 1.0
    distortion: float = 0.1
    density_tv: float = 0.3
    color_tv: float = 0.01
    tv_fraction: float = 0.25
    refresh_every: int = 16

    def __post_init__(self) -> None:
        for name in ("num_rays", "num_samples", "refresh_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"fit {name} must be at least 1, got {getattr(self, name)}")
        for name in ("mask", "distortion", "density_tv", "color_tv"):
            if not 0 <= getattr(self, name) <= 1000:
                raise ValueError(
                    f"fit {name} is a weight and must lie in 0..1000, got {getattr(self, name):g}"
                )
        if not 0 < self.learning_rate <= 10:
            raise ValueError(f"fit learning_rate must lie above 0 and up to 10, got {self.learning_rate:g}")
        for name in ("learning_rate_decay", "tv_fraction"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"fit {name} must lie above 0 and up to 1, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class MultiviewConfig:
    """Rounds of sampling and fitting.

    timesteps: where SDEdit starts, out of 1000, one a round after the first (which starts from noise).
    steps_per_round: fit steps. groups: sets of ``group_size`` cameras sampled in every round but the first, whose
    only set is the one that agrees with itself. elevations_deg: of the sets, in turn. keep_rounds: the fit sees the
    views of this many last rounds. hull_rounds: the first rounds carve the volume anew from their silhouettes;
    hull_tolerance: share of views that carving may overrule. resolutions: voxels along an edge, one a round (the
    last one holds on). render_size: pixels of the pictures given to SDEdit and of the views.
    """

    timesteps: tuple[int, ...] = (800, 600, 450, 300, 200)
    steps_per_round: int = 60
    groups: int = 1
    group_size: int = 8
    elevations_deg: tuple[float, ...] = (15.0, 35.0, 0.0, 25.0, -10.0, 30.0)
    fovy_deg: float = 40.0
    keep_rounds: int = 3
    hull_rounds: int = 1
    hull_tolerance: float = 0.0
    resolutions: tuple[int, ...] = (48, 48, 48, 48, 64, 64)
    render_size: int = 128
    mask_threshold: float = 0.06
    volume: VolumeConfig = field(default_factory=VolumeConfig)
    fit: FitConfig = field(default_factory=FitConfig)

    def __post_init__(self) -> None:
        for name in ("steps_per_round", "groups", "group_size", "keep_rounds", "hull_rounds", "render_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"multiview {name} must be at least 1, got {getattr(self, name)}")
        if any(not 1 <= t <= 1000 for t in self.timesteps):
            raise ValueError(f"multiview timesteps must lie in 1..1000, got {list(self.timesteps)}")
        if not self.elevations_deg or not self.resolutions:
            raise ValueError("multiview elevations_deg and resolutions need at least one entry each")
        check_elevations("multiview elevations_deg", self.elevations_deg)
        check_fovy("multiview fovy_deg", [self.fovy_deg])
        if list(self.resolutions) != sorted(self.resolutions):
            raise ValueError(f"multiview resolutions must not fall, got {list(self.resolutions)}")
        for resolution in (self.resolutions[0], self.resolutions[-1]):
            replace(self.volume, resolution=resolution)  # has its own bounds
        if not 0.0 <= self.hull_tolerance < 1.0:
            raise ValueError(f"multiview hull_tolerance must lie in [0, 1), got {self.hull_tolerance}")
        check_mask_threshold("multiview mask_threshold", self.mask_threshold)

    @property
    def num_rounds(self) -> int:
        return 1 + len(self.timesteps)

    def build(self, provider: ViewProvider, device: torch.device | str = "cpu") -> MultiviewReconstruction:
        from gen3d.stages.multiview import MultiviewReconstruction

        return MultiviewReconstruction(self, provider, device)


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """Score distillation of a volume; the volume must be there.

    loss: ``x0`` (MVDream's, all views at once) or ``sds``. guidance_scale is the standard one. render_size pixels
    are rendered and enlarged to the backbone's image size.
    """

    num_steps: int = 0
    loss: Literal["x0", "sds"] = "x0"
    weighting: Weighting = "sds"
    guidance_scale: float = 5.0
    rescale: float = 0.5
    num_views: int = 4
    elevations_deg: tuple[float, float] = (0.0, 40.0)
    fovy_deg: float = 40.0
    render_size: int = 64
    num_samples: int = 64
    learning_rate: float = 0.02
    max_gradient: float = 1.0
    opaque: float = 0.01
    density_tv: float = 0.3
    annealing: AnnealingConfig = field(default_factory=AnnealingConfig)

    def __post_init__(self) -> None:
        if self.loss not in ("x0", "sds"):
            raise ValueError(f"distill loss must be x0 or sds, got {self.loss!r}")
        if self.num_steps < 0:
            raise ValueError(f"distill num_steps must not be negative, got {self.num_steps}")
        if not 0.0 <= self.rescale <= 1.0:
            raise ValueError(f"distill rescale must lie in 0..1, got {self.rescale}")
        for name in ("num_views", "render_size", "num_samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"distill {name} must be at least 1, got {getattr(self, name)}")
        check_elevations("distill elevations_deg", self.elevations_deg)
        check_fovy("distill fovy_deg", [self.fovy_deg])
        for name, low, high in (
            ("guidance_scale", 0, 1000), ("rescale", 0, 1), ("opaque", 0, 1000), ("density_tv", 0, 1000)
        ):  # fmt: skip
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"distill {name} must lie in {low}..{high}, got {getattr(self, name):g}")
        for name, high in (("learning_rate", 10), ("max_gradient", 1000)):
            if not 0 < getattr(self, name) <= high:
                raise ValueError(
                    f"distill {name} must lie above 0 and up to {high}, got {getattr(self, name):g}"
                )

    def build(self, backbone: Backbone, prompt: str, negative_prompt: str = "") -> Distill:
        from gen3d.stages.distill import Distill

        return Distill(self, backbone, prompt, negative_prompt)


@dataclass(frozen=True, kw_only=True)
class ExtractConfig:
    """resolution: of the grid that is meshed. level: optical density per unit length at the surface; what is denser
    is inside. A fitted density rises within a voxel or two, and thin haze outside stays below about 5.
    max_gap: pieces so near each other (world units) are joined, where no view sees through between them; 0 joins none.
    min_fraction, min_extent: pieces below these shares of the largest one's volume and of its bounding box's diagonal
    go: floaters are small both ways, a sword beside a house is only thin. target_faces: after decimation. smooth:
    Taubin iterations.
    """

    resolution: int = 96
    level: float = 10.0
    max_gap: float = 0.35
    min_fraction: float = 0.03
    min_extent: float = 0.4
    target_faces: int = 12000
    smooth: int = 4

    def __post_init__(self) -> None:
        if not 8 <= self.resolution <= 512:
            raise ValueError(f"extract resolution must lie in 8..512, got {self.resolution}")
        if not self.level > 0:
            raise ValueError(f"extract level is an optical density above 0, got {self.level}")
        for name in ("min_fraction", "min_extent"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"extract {name} must lie in [0, 1), got {getattr(self, name)}")
        if not 0 <= self.max_gap <= 4:
            raise ValueError(f"extract max_gap must lie in 0..4, got {self.max_gap:g}")
        if self.target_faces < 4 or not 0 <= self.smooth <= 100:
            raise ValueError(
                f"extract target_faces must be at least 4 and smooth in 0..100, got {self.target_faces}, {self.smooth}"
            )

    def build(self) -> ExtractMesh:
        from gen3d.stages.mesh import ExtractMesh

        return ExtractMesh(self)


@dataclass(frozen=True, kw_only=True)
class RefineConfig:
    """Vertices and vertex colours moved to match pictures.

    vertex_rate, color_rate: learning rates, falling to zero along a cosine. Weights beside the mean squared colour
    error: mask, laplacian (in mean edge lengths), normal_consistency.
    """

    num_steps: int = 60
    views_per_step: int = 4
    vertex_rate: float = 2e-3
    color_rate: float = 2e-2
    mask: float = 1.0
    laplacian: float = 0.15
    normal_consistency: float = 0.08

    def __post_init__(self) -> None:
        if self.num_steps < 0:
            raise ValueError(f"refine num_steps must not be negative, got {self.num_steps}")
        if self.views_per_step < 1:
            raise ValueError(f"refine views_per_step must be at least 1, got {self.views_per_step}")
        for name, high in (
            ("vertex_rate", 0.1), ("color_rate", 1), ("mask", 1000), ("laplacian", 1000), ("normal_consistency", 1000)
        ):  # fmt: skip
            if not 0 <= getattr(self, name) <= high:
                raise ValueError(f"refine {name} must lie in 0..{high}, got {getattr(self, name):g}")

    def build(self) -> RefineMesh:
        from gen3d.stages.mesh import RefineMesh

        return RefineMesh(self)


@dataclass(frozen=True, kw_only=True)
class RedrawConfig:
    """timestep: where SDEdit starts, out of 1000; 0 leaves the stage out. num_views: evenly around, the first from
    straight ahead; a multiple of the backbone's. elevation_deg: of all of them. keep_views: how many of the latest
    views stay beside the new ones. mask_threshold: as of ``gen3d.views.soft_mask``."""

    timestep: int = 600
    num_views: int = 8
    elevation_deg: float = 10.0
    fovy_deg: float = 40.0
    keep_views: int = 8
    mask_threshold: float = 0.06

    def __post_init__(self) -> None:
        if not 0 <= self.timestep <= 1000:
            raise ValueError(f"redraw timestep must lie in 0..1000, got {self.timestep}")
        if self.num_views < 1:
            raise ValueError(f"redraw num_views must be at least 1, got {self.num_views}")
        if self.keep_views < 0:
            raise ValueError(f"redraw keep_views must not be negative, got {self.keep_views}")
        check_elevations("redraw elevation_deg", [self.elevation_deg])
        check_fovy("redraw fovy_deg", [self.fovy_deg])
        check_mask_threshold("redraw mask_threshold", self.mask_threshold)

    def build(self, provider: ViewProvider) -> Redraw:
        from gen3d.stages.redraw import Redraw

        return Redraw(self, provider)


@dataclass(frozen=True, kw_only=True)
class DelightConfig:
    """strength: share of the fitted light that is taken out; 0 leaves colours as they are. num_pairs: of samples
    compared. usual: strength of the light that is expected; 0 for pictures of even light. chroma: angle between two
    colours, in radians, at which a pair counts for a third. robustness: the difference in log luminance that a pair
    may have beyond the light's before it counts for a quarter; the fit begins with seven times as much. ridge: pull
    of the coefficients to the expected light. floor: least shading corrected for, and so the bound: a colour becomes
    at most 1 / floor times as bright.
    """

    strength: float = 1.0
    num_pairs: int = 50_000
    usual: float = 1.0
    chroma: float = 0.2
    robustness: float = 0.2
    ridge: float = 5e-4
    floor: float = 0.25

    def __post_init__(self) -> None:
        if not 0.0 <= self.strength <= 1.0:
            raise ValueError(f"delight strength must lie in 0..1, got {self.strength}")
        if self.num_pairs < 1:
            raise ValueError(f"delight num_pairs must be at least 1, got {self.num_pairs}")
        if not 0 <= self.usual <= 10:
            raise ValueError(f"delight usual must lie in 0..10, got {self.usual:g}")
        for name in ("chroma", "robustness", "ridge"):
            if not 1e-9 <= getattr(self, name) <= 1e3:
                raise ValueError(f"delight {name} must lie in 1e-9..1000, got {getattr(self, name):g}")
        if not 1e-3 <= self.floor <= 1.0:
            raise ValueError(f"delight floor must lie in 0.001..1, got {self.floor:g}")


@dataclass(frozen=True, kw_only=True)
class TextureConfig:
    """size: texels along an edge. views_weight: how much the views count against the mesh's own colours where they
    see the surface squarely; 0 bakes the mesh's colours alone. sharpness: power of the cosine between a view's
    direction and the surface, by which views are mixed. delight: how the views' light is taken out."""

    size: int = 1024
    views_weight: float = 1.0
    sharpness: float = 4.0
    delight: DelightConfig = field(default_factory=DelightConfig)

    def __post_init__(self) -> None:
        if not 16 <= self.size <= 8192:
            raise ValueError(f"texture size must lie in 16..8192 texels, got {self.size}")
        for name in ("views_weight", "sharpness"):
            if not 0 <= getattr(self, name) <= 1000:
                raise ValueError(f"texture {name} must lie in 0..1000, got {getattr(self, name):g}")

    def build(self) -> Texture:
        from gen3d.stages.texture import Texture

        return Texture(self)


@dataclass(frozen=True, kw_only=True)
class QuickstartConfig:
    """Words to a textured mesh: rounds of sampled views and a fitted volume, optional distillation (0 steps leave it
    out), a mesh, refined against the views (0 steps leave it out) and drawn once more (timestep 0 leaves it out), and
    its texture."""

    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    multiview: MultiviewConfig = field(default_factory=MultiviewConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    extract: ExtractConfig = field(default_factory=ExtractConfig)
    refine: RefineConfig = field(default_factory=RefineConfig)
    redraw: RedrawConfig = field(default_factory=RedrawConfig)
    texture: TextureConfig = field(default_factory=TextureConfig)

    def __post_init__(self) -> None:
        # So dense a carved volume is from the start, before anything is fitted.
        most = 0.5 * self.multiview.volume.density_scale
        if not self.extract.level < most:
            raise ValueError(
                f"extract.level must lie below half of multiview.volume.density_scale, {most:g}, got "
                f"{self.extract.level:g}: what a fit begins with would be empty"
            )
