"""Galatea's baselines as methods of nerfstudio: its trainer steps them, its viewer shows them as they grow.

    ns-train galatea-mvdream --pipeline.prompt "a red mushroom"

The experiment `baseline/mvdream` is composed with `representation=nerfstudio`, and the first stage of its recipe, a
distillation, says what the losses and the rates of each step are. After the last step the rest of the recipe makes the
mesh, beside nerfstudio's own checkpoint.

Nerfstudio's world has +Z up, and there the object faces -Y.
"""
# pyright: reportMissingImports=false

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.configs.base_config import MachineConfig, ViewerConfig
from nerfstudio.data.datamanagers.base_datamanager import DataManager, DataManagerConfig
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.engine.callbacks import (
    TrainingCallback,
    TrainingCallbackAttributes,
    TrainingCallbackLocation,
)
from nerfstudio.engine.optimizers import AdamOptimizerConfig
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.models.base_model import Model, ModelConfig
from nerfstudio.pipelines.base_pipeline import Pipeline, VanillaPipelineConfig
from nerfstudio.plugins.types import MethodSpecification
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from experiments.tasks.configs.text_to_3d import Config
    from gen3d.optimize import Stage
    from gen3d.representations.base import RepresentationConfig
    from gen3d.stages.distill import Distill

# From nerfstudio's world to ours.
_TURN = ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, -1.0, 0.0))
_FAR = 10.0  # the depth of what is empty
# What the options of ns-train say, and overrides must not.
_TAKEN = {
    "experiment": "--pipeline.experiment",
    "prompt": "--pipeline.prompt",
    "representation": "the method, which is nerfstudio's field",
    "seed": "--machine.seed",
    "device": "--machine.device-type",
    "out": "--output-dir",
    "recipe.distill.num_steps": "--max-num-iterations",
    "checkpoint_every": "--steps-per-save",
    "overwrite": "--timestamp, which names the folder",
    "threads": "OMP_NUM_THREADS in the environment",
    "turntable": "nothing, for no turntable is made",
}


@contextmanager
def _one_line() -> Iterator[None]:
    """An error of the user ends the program with one line, as with `galatea`."""
    from experiments.errors import debug, describe

    try:
        yield
    except Exception as error:
        if debug():
            raise
        line, status = describe(error)
        print(f"galatea: {line}", file=sys.stderr)
        raise SystemExit(status) from None


@dataclass
class ViewsConfig(DataManagerConfig):
    """There are no pictures to learn from: cameras are drawn by the recipe."""

    _target: type = field(default_factory=lambda: ViewsManager)


class _Around:
    """A few cameras around the object, for the viewer to show; their pictures are plain."""

    def __init__(self) -> None:
        from gen3d.cameras import ring

        ours = ring(8)
        focal = 0.5 / torch.tan(torch.deg2rad(ours.fovy_deg) / 2)
        c2w = torch.tensor(_TURN).T @ ours.c2w[:, :3]
        self.cameras = Cameras(
            camera_to_worlds=c2w, fx=64 * focal, fy=64 * focal, cx=32.0, cy=32.0, width=64, height=64
        )
        self.scene_box = SceneBox(torch.tensor([[-1.0] * 3, [1.0] * 3]))

    def __len__(self) -> int:
        return len(self.cameras)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": torch.full((64, 64, 3), 0.5), "image_idx": index}


class ViewsManager(DataManager):
    """What nerfstudio's trainer and viewer ask of data where there is none. rays: in a step of training."""

    def __init__(self, config: ViewsConfig, *, rays: int, **_: Any) -> None:
        nn.Module.__init__(self)
        self.config, self.rays = config, rays
        self.train_dataset, self.eval_dataset = _Around(), None

    def get_train_rays_per_batch(self) -> int:
        return self.rays


@dataclass
class GalateaModelConfig(ModelConfig):
    """The field: its settings are --pipeline.overrides representation.KEY=VALUE."""

    _target: type = field(default_factory=lambda: GalateaModel)


class GalateaModel(Model):
    """What is optimised, as parameters, and pictures of it. `learnt`: by the name in the State."""

    def __init__(
        self,
        config: GalateaModelConfig,
        *,
        representation: RepresentationConfig,
        learnt: Mapping[str, Tensor],
        background: Tensor,
        **given: Any,
    ) -> None:
        super().__init__(config, **given)
        self.representation = representation
        self.names = {name: name.replace(".", "/") for name in learnt}
        for name, tensor in learnt.items():
            self.register_parameter(self.names[name], nn.Parameter(tensor.detach().clone()))
        self.register_buffer("background", background.detach().clone(), persistent=False)
        self.register_buffer("turn", torch.tensor(_TURN), persistent=False)

    def populate_modules(self) -> None:
        """None: rays meet the cube of the field by themselves."""

    def learnt(self) -> dict[str, nn.Parameter]:
        return {name: self.get_parameter(inner) for name, inner in self.names.items()}

    def get_param_groups(self) -> dict[str, list[nn.Parameter]]:
        groups: dict[str, list[nn.Parameter]] = {}
        for name, parameter in self.learnt().items():
            groups.setdefault(group_of(name), []).append(parameter)
        return groups

    def get_outputs(self, ray_bundle: RayBundle) -> dict[str, Tensor]:
        """rgb `[N, 3]`, accumulation and depth `[N, 1]` of N rays."""
        from gen3d.render.rays import render_rays
        from gen3d.representations.base import GROUP, Field

        start = f"{GROUP}/"
        tensors = {name[len(start) :]: each for name, each in self.learnt().items() if name.startswith(start)}
        live = self.representation.load(tensors)
        assert isinstance(live, Field)
        origins, directions = (each @ self.turn.T for each in (ray_bundle.origins, ray_bundle.directions))
        seen = render_rays(live, origins, directions, self.background, num_samples=live.num_samples)
        opacity = seen.opacity[:, None]
        distance = seen.depth[:, None] / opacity.clamp_min(1e-3)
        return {
            "rgb": seen.rgb.clamp(0.0, 1.0),
            "accumulation": opacity,
            "depth": torch.where(opacity > 0.5, distance, _FAR),
        }


def group_of(name: str) -> str:
    """Which group of parameters a tensor of the State is in."""
    from gen3d.representations.base import GROUP

    if name.startswith(f"{GROUP}/"):
        return "tables" if name.endswith("hash_table") else "networks"
    return "background" if name.startswith("distill/") else "loss"


@dataclass
class GalateaPipelineConfig(VanillaPipelineConfig):
    """An experiment of Galatea."""

    _target: type = field(default_factory=lambda: GalateaPipeline)
    datamanager: DataManagerConfig = field(default_factory=ViewsConfig)
    model: ModelConfig = field(default_factory=GalateaModelConfig)
    experiment: str = "baseline/dreamfusion"
    """Whose recipe is followed; it must begin with a distillation."""
    prompt: str = ""
    """What to make."""
    overrides: tuple[str, ...] = ()
    """Further settings as `galatea` takes them, such as budget=smoke backbone=sd21 distillation.guidance_scale=50."""


class GalateaPipeline(Pipeline):
    """The first stage of a recipe over a State whose learning tensors are the model's parameters."""

    def __init__(
        self,
        config: GalateaPipelineConfig,
        device: str,
        test_mode: str = "val",
        world_size: int = 1,
        local_rank: int = 0,
        grad_scaler: Any = None,
    ) -> None:
        from experiments.run.seeding import make_generator
        from gen3d.state import State

        super().__init__()
        self.config, self.world_size, self.test_mode = config, world_size, test_mode
        with _one_line():
            if world_size > 1:
                raise ValueError(f"Galatea's methods take one device, got --machine.num-devices {world_size}")
            self.settings = _settings(config, device, torch.initial_seed())
            self.distill, self.rest = _stages(self.settings)
            self.state = State()
            self.distill.start(self.state, make_generator(self.settings.seed, "optimize"))
            learnt = {name: self.state[name] for name in self.distill.rates(self.state, 0)}
        rays = self.distill.config.num_views * self.distill.config.render_size[0] ** 2
        self.datamanager = config.datamanager.setup(rays=rays)
        background = self.state["distill/background"]
        if "distill/background" in learnt:
            background = torch.sigmoid(background)
        self._model = config.model.setup(
            scene_box=self.datamanager.train_dataset.scene_box,
            num_train_data=len(self.datamanager.train_dataset),
            representation=self.settings.representation,
            learnt=learnt,
            background=background,
        )
        self._model.to(device)
        self._bind()

    def _bind(self) -> None:
        """Let the State hold the parameters themselves: a stage may have put what they should be in their place."""
        with torch.no_grad():
            for name, parameter in self.model.learnt().items():
                if self.state[name].data_ptr() != parameter.data_ptr():
                    parameter.copy_(self.state[name])
                self.state[name] = parameter

    def get_train_loss_dict(self, step: int) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Any]]:
        from diffusion.finite import NonFiniteError
        from experiments.run.seeding import make_generator

        # Of each step its own, so that a run that is loaded again draws what the unbroken one would have.
        generator = make_generator(self.settings.seed, f"step {step}")
        with torch.no_grad():
            self.distill.before(self.state, step, generator)
        self._bind()
        with _one_line():
            losses = self.distill.losses(self.state, step, generator)
            bad = [name for name, loss in losses.items() if not torch.isfinite(loss).all()]
            if bad:
                raise NonFiniteError(f"step {step}: {', '.join(bad)} is NaN or infinity")
        return {}, losses, {"total": torch.stack(list(losses.values())).sum().detach()}

    def get_training_callbacks(self, attributes: TrainingCallbackAttributes) -> list[TrainingCallback]:
        trainer, optimizers = attributes.trainer, attributes.optimizers
        assert trainer is not None
        assert optimizers is not None
        self.distill.num_steps = trainer._start_step + trainer.config.max_num_iterations

        def rates(step: int) -> None:
            """Those of the recipe, times the `lr` of each group's optimizer."""
            for name, rate in self.distill.rates(self.state, step).items():
                group = group_of(name)
                for each in optimizers.optimizers[group].param_groups:
                    each["lr"] = optimizers.config[group]["optimizer"].lr * rate

        def finish(step: int) -> None:
            self._make_mesh(trainer.base_dir)

        return [
            TrainingCallback([TrainingCallbackLocation.BEFORE_TRAIN_ITERATION], rates),
            TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN], finish),
        ]

    def _make_mesh(self, folder: Path) -> None:
        """The rest of the recipe, and its mesh in files."""
        from experiments.run.provenance import version
        from experiments.run.seeding import make_generator
        from gen3d.cameras import ring
        from gen3d.export import export_asset
        from gen3d.mesh_state import load_mesh
        from gen3d.meshing import with_normals
        from gen3d.optimize import optimize
        from gen3d.render.renderer import renderer
        from gen3d.state import State

        config = self.settings
        state = State.from_tensors(self.state.tensors())
        with _one_line(), renderer(config.renderer):
            optimize(self.rest, state, generator=make_generator(config.seed, "rest"))
            mesh = with_normals(load_mesh(state).detach().to("cpu"))
            extras = {"generator": f"Galatea {version()}", "prompt": config.prompt, "seed": config.seed}
            export_asset(mesh, folder, cameras=ring(4), extras=extras)
        print(f"{folder}: mesh.glb, mesh.obj, mesh.ply, mesh.stl", file=sys.stderr)

    def get_param_groups(self) -> dict[str, list[nn.Parameter]]:
        return self.model.get_param_groups()

    def load_pipeline(self, loaded_state: dict[str, Any], step: int) -> None:
        self.load_state_dict(loaded_state)


def _settings(config: GalateaPipelineConfig, device: str, seed: int) -> Config:
    """Those of the experiment; ValueError for overrides of what has an option of its own."""
    from experiments import compose, messages
    from experiments.errors import UserError
    from experiments.run import caches
    from experiments.tasks import text_to_3d
    from experiments.tasks.configs.text_to_3d import Config

    given = {each.lstrip("+").partition("=")[0]: each for each in config.overrides}
    for name, each in given.items():
        taken = _TAKEN.get("turntable" if name.startswith("turntable.") else name)
        if taken:
            raise ValueError(f"--pipeline.overrides {each}: that is said by {taken}")
    prompt = config.prompt or config.model.prompt or ""
    if config.model.prompt not in (None, prompt):
        raise ValueError("--prompt and --pipeline.prompt say different things; give one of them")
    argv = [
        f"experiment={config.experiment}", "representation=nerfstudio", f"prompt={prompt}", f"seed={seed}",
        f"device={device}", *config.overrides,
    ]  # fmt: skip
    if "budget" not in given:
        argv.append(f"budget={'gpu' if device.startswith('cuda') else 'cpu'}")
    caches.prepare()
    try:
        settings = compose.settings(argv)
    except Exception as error:
        choice, line = messages.unmatched_choice(error.__cause__ or error), messages.of(error, argv)
        if choice:
            line = f"--pipeline.experiment {config.experiment} has no {choice!r} to choose; baseline/mvdream does"
        if line is None:
            raise
        raise UserError(line) from error
    if not isinstance(settings, Config):
        raise ValueError(f"--pipeline.experiment {config.experiment} is no experiment of text_to_3d")
    text_to_3d.validate(settings)
    return settings


def _stages(settings: Config) -> tuple[Distill, list[Stage]]:
    """The distillation that a recipe begins with, and what comes after it."""
    from experiments.run.seeding import resolve_device
    from experiments.tasks import text_to_3d
    from gen3d.recipe import build_stages
    from gen3d.stages.distill import Distill

    backbone = settings.backbone.build(resolve_device(settings.device))
    first, *rest = build_stages(settings.recipe, text_to_3d.given_to(settings, backbone))
    if not isinstance(first, Distill):
        raise ValueError(
            f"the recipe of --pipeline.experiment {settings.experiment} begins with {first.name}; it must begin with "
            "a distillation, such as that of baseline/mvdream"
        )
    return first, rest


def _method(name: str) -> MethodSpecification:
    optimizers = {
        group: {"optimizer": AdamOptimizerConfig(lr=1.0, eps=1e-15), "scheduler": None}
        for group in ("tables", "networks", "background", "loss")
    }
    config = TrainerConfig(
        method_name=f"galatea-{name}",
        experiment_name="galatea",
        max_num_iterations=10000 if torch.cuda.is_available() else 250,
        steps_per_save=500,
        pipeline=GalateaPipelineConfig(experiment=f"baseline/{name}"),
        optimizers=optimizers,
        machine=MachineConfig(device_type="cuda" if torch.cuda.is_available() else "cpu"),
        viewer=ViewerConfig(websocket_host="127.0.0.1", num_rays_per_chunk=1 << 12),
        vis="viewer",
    )
    return MethodSpecification(config=config, description=f"Galatea's baseline/{name}: words to a 3D figure.")


dreamfusion = _method("dreamfusion")
mvdream = _method("mvdream")
