"""The distill stage, with a fake representation, a fake prior that knows the truth, and two processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffusion.finite import NonFiniteError
from experiments.benchmark.truth import grey_sphere
from gen3d.asset import Mesh
from gen3d.camera_sampling.orbit import Orbit
from gen3d.camera_sampling.ranges import Ranges
from gen3d.cameras import Cameras
from gen3d.distillation.base import Loss, Scores
from gen3d.distillation.inject import limited
from gen3d.distillation.sds import SDS
from gen3d.distillation.x0 import X0
from gen3d.metrics import volume_iou
from gen3d.optimize import optimize
from gen3d.priors.base import Prior, PriorConfig, Request
from gen3d.representations.base import Rendered, Representation, RepresentationConfig
from gen3d.representations.config import VolumeConfig
from gen3d.schedules import Points
from gen3d.stages.base import Chosen, Given
from gen3d.stages.config import DistillConfig, ExtractConfig, Guidance
from gen3d.state import State
from gen3d.views import Views
from tests.gen3d.test_distillation import Known

if TYPE_CHECKING:
    from gen3d.distillation.base import Memory

TRUTH = torch.tensor([0.9, 0.2, 0.4])


@dataclass(frozen=True, kw_only=True)
class PlateConfig(RepresentationConfig):
    def begin(self, device: torch.device | str = "cpu") -> Plate:
        return Plate(torch.full((3,), 0.5, device=device))

    def load(self, tensors: Mapping[str, Tensor]) -> Plate:
        return Plate(tensors["color"])


class Plate(Representation):
    """One tensor: a colour that every camera sees all over."""

    def __init__(self, color: Tensor) -> None:
        self.color = color

    @property
    def device(self) -> torch.device:
        return self.color.device

    def tensors(self) -> dict[str, Tensor]:
        return {"color": self.color}

    def rates(self, progress: float = 0.0) -> dict[str, float]:
        return {"color": 1.0}

    def render(self, cameras: Cameras, size: int, background: Tensor, **_: object) -> Rendered:
        images = self.color[None, :, None, None].expand(len(cameras), 3, size, size)
        return Rendered(images=images, opacity=torch.ones(len(cameras), 1, size, size))

    def to_mesh(self, settings: object, views: Views | None) -> Mesh:
        raise NotImplementedError


class Knowing(Known):
    """Knows that everything has one colour."""

    def __init__(self, num_views: int = 2, color: Tensor = TRUTH) -> None:
        super().__init__("v_prediction")
        self.num_views, self.image_size, self.color = num_views, 8, color

    @property
    def background(self) -> tuple[float, float, float]:
        return (0.1, 0.5, 0.8)

    def predict(self, latents: Tensor, timestep: Tensor, cameras: Cameras, which: Sequence[str]) -> Tensor:
        assert len(cameras) == latents.shape[0] * latents.shape[1]
        x0 = self.color[:, None, None].expand_as(latents)
        return torch.stack([self.schedule.from_x0(x0, latents, timestep)] * len(which))


@dataclass(frozen=True, kw_only=True)
class Ready(PriorConfig):
    prior: Prior

    def build(self, request: Request) -> Prior:
        return self.prior


def given(prior: Prior, representation: RepresentationConfig, share: tuple[int, int] = (0, 1)) -> Given:
    chosen = Chosen(prior=Ready(prior=prior), representation=representation, distillation=X0(rescale=0.0))
    return Given(chosen=chosen, request=Request(backbone=None, prompt=""), share=share)  # type: ignore[arg-type]


def distil(config: DistillConfig, given: Given, **extra: object) -> State:
    generator = torch.Generator().manual_seed(0)
    return optimize([config.build(given)], State(), generator=generator, **extra)  # type: ignore[arg-type]


@pytest.mark.parametrize("cameras", [Orbit(), Ranges(progressive=0.5)])
def test_any_representation_follows_any_prior(cameras: Orbit | Ranges) -> None:
    config = DistillConfig(num_steps=120, num_views=4, render_size=(8,), opaque=0.0, cameras=cameras)
    state = distil(config, given(Knowing(), PlateConfig()))
    torch.testing.assert_close(state["representation/color"], TRUTH, atol=0.03, rtol=0)


@pytest.mark.parametrize(("first", "second"), [(1.0, 0.0), (0.0, 1.0), (((0.0, 1.0), (0.1, 0.0)), 1.0)])
def test_guidances_are_weighed_against_each_other(first: Points, second: Points) -> None:
    """Two priors of different opinions: the one that has weight, in the end, is followed."""
    other = Knowing(color=torch.tensor([0.1, 0.8, 0.4]))
    config = DistillConfig(
        num_steps=150,
        render_size=(8,),
        opaque=0.0,
        guidances={
            "one": Guidance(weight=first),
            "two": Guidance(prior=Ready(prior=other), loss=SDS(weighting="uniform"), weight=second),
        },
    )
    state = distil(config, given(Knowing(), PlateConfig()))
    followed = other.color if second else TRUTH
    torch.testing.assert_close(state["representation/color"], followed, atol=0.03, rtol=0)


@pytest.mark.parametrize("background", ["asked", "random", "learned"])
def test_a_volume_takes_its_resolutions_its_light_and_its_background(background: str) -> None:
    config = DistillConfig(
        num_steps=6,
        num_views=2,
        render_size=(8, 12),
        background=background,  # type: ignore[arg-type]
        orient=0.1,
        distortion=0.1,
        sparsity=((0.0, 0.1), (1.0, 0.2)),
        background_rate=0.05 if background == "learned" else 0.001,
    )
    volume = VolumeConfig(resolutions=(8, 12), num_samples=16)
    state = distil(config, given(Knowing(), volume))
    assert state["representation/grid"].shape[0] == 12
    asked = torch.tensor(Knowing().background)
    if background == "learned":
        assert float((torch.sigmoid(state["distill/background"]) - asked).abs().max()) > 0.005
    else:
        torch.testing.assert_close(state["distill/background"], asked)
    assert not any(name.startswith("adam/") for name in state)


def test_a_killed_distillation_goes_on_bit_for_bit() -> None:
    config = DistillConfig(num_steps=8, num_views=2, render_size=(8, 12), cameras=Ranges())
    saves: list[tuple[dict[str, Tensor], dict[str, str]]] = []
    whole = given(Knowing(1), VolumeConfig(resolutions=(8, 12), num_samples=16))
    final = distil(
        config, whole, checkpoint_every=1, save=lambda step, tensors, about: saves.append((tensors, about))
    ).tensors()
    for saved in saves[:-1]:
        again = distil(config, whole, resume=saved).tensors()
        assert again.keys() == final.keys()
        assert all(torch.equal(again[name], final[name]) for name in final)


SHARED = DistillConfig(num_steps=3, num_views=8, render_size=(8,), background="random", orient=0.1)


def _distil_shared(
    share: tuple[int, int], reduce: Callable[[Mapping[str, Tensor]], None]
) -> dict[str, Tensor]:
    """The grid after all steps, and its gradient in the first."""
    first: dict[str, Tensor] = {}

    def note(gradients: Mapping[str, Tensor]) -> None:
        reduce(gradients)
        first.setdefault("gradient", gradients["representation/grid"].clone())

    volume = VolumeConfig(resolutions=(8,), num_samples=16)
    state = distil(SHARED, given(Knowing(), volume, share), reduce=note)
    return first | {"grid": state["representation/grid"]}


def _process(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.set_num_threads(1)

    def reduce(gradients: Mapping[str, Tensor]) -> None:
        for gradient in gradients.values():
            dist.all_reduce(gradient)
            gradient /= 2

    save_file(_distil_shared((rank, 2), reduce), f"{folder}/{rank}.safetensors")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_that_share_the_views_do_what_one_does(tmp_path: Path) -> None:
    alone = _distil_shared((0, 1), lambda gradients: None)
    mp.start_processes(_process, args=(str(tmp_path),), nprocs=2, start_method="spawn")  # type: ignore[attr-defined]
    for rank in range(2):
        shared = load_file(tmp_path / f"{rank}.safetensors")
        size = float(alone["gradient"].abs().max())
        torch.testing.assert_close(shared["gradient"] / size, alone["gradient"] / size, rtol=1e-6, atol=1e-6)
        # Adam makes whole steps of gradients that are but rounding.
        torch.testing.assert_close(shared["grid"], alone["grid"], rtol=0, atol=1e-4)


@dataclass(frozen=True, kw_only=True)
class Odd(Loss):
    """A gradient of one value everywhere, and NaN from some progress on."""

    name: Literal["odd"] = "odd"
    value: float = 1.0
    breaks_at: float = 2.0
    of_images: bool = False

    def __call__(
        self, scores: Scores, latents: Tensor, noise: Tensor, memory: Memory, generator: torch.Generator
    ) -> Tensor:
        broken = scores.progress >= self.breaks_at and not self.of_images
        return torch.full_like(latents, float("nan") if broken else self.value).half()

    def image_gradient(self, scores: Scores, images: Tensor, latents: Tensor) -> Tensor | None:
        broken = self.of_images and scores.progress >= self.breaks_at
        return torch.full_like(images, float("inf") if broken else 0.0)


def distil_odd(loss: Odd, **settings: object) -> State:
    chosen = given(Knowing(), PlateConfig())
    chosen = replace(chosen, chosen=replace(chosen.chosen, distillation=loss))
    plain = {"num_steps": 4, "num_views": 2, "render_size": (8,), "opaque": 0.0}
    return distil(DistillConfig(**{**plain, **settings}), chosen)  # type: ignore[arg-type]


@pytest.mark.parametrize("of_images", [False, True])
def test_a_gradient_that_is_no_number_is_told_with_the_name_of_its_loss(of_images: bool) -> None:
    with pytest.raises(
        NonFiniteError, match=r"step 3: the gradient of the loss 'odd' holds NaN or infinity; lower"
    ):
        distil_odd(Odd(breaks_at=0.5, of_images=of_images))


@pytest.mark.parametrize(
    ("clip", "max_gradient", "expected"),
    [
        (0.0, 1000.0, 3.0),
        (0.5, 1000.0, 0.5),
        (5.0, 1000.0, 3.0),
        (((0.0, 2.0), (1.0, 1.0)), 1000.0, 2.0),
        (0.5, 0.2, 0.2),
    ],
)  # fmt: skip
def test_each_number_of_a_gradient_is_clipped_and_then_their_rms(
    clip: Points, max_gradient: float, expected: float
) -> None:
    found: list[Tensor] = []

    def note(gradients: Mapping[str, Tensor]) -> None:
        found.append(gradients["representation/color"].clone())

    chosen = given(Knowing(), PlateConfig())
    chosen = replace(chosen, chosen=replace(chosen.chosen, distillation=Odd(value=3.0)))
    config = DistillConfig(
        num_steps=1, num_views=2, render_size=(8,), opaque=0.0, clip=clip, max_gradient=max_gradient
    )
    distil(config, chosen, reduce=note)
    # The mean over the numbers of an object; all pixels of a channel are one colour.
    torch.testing.assert_close(found[0], torch.full((3,), expected / 3))


def test_clipping_is_of_each_number_by_itself() -> None:
    gradient = torch.tensor([[10.0, -10.0, 0.1, 0.2]])
    assert limited(gradient, "odd", 0.5, 100.0).tolist() == [pytest.approx([0.5, -0.5, 0.1, 0.2])]
    assert limited(gradient.half(), "odd", 0.0, 100.0).dtype == torch.float32
    with pytest.raises(ValueError, match="distill clip must lie in"):
        DistillConfig(clip=-1.0)


def test_thin_surfaces_are_asked_for() -> None:
    """z_variance alone makes what the rays meet thinner."""
    volume = VolumeConfig(resolutions=(12,), num_samples=32, density_tv=0.0, color_tv=0.0)
    config = DistillConfig(num_steps=1, num_views=2, render_size=(12,), opaque=0.0, z_variance=2.0)
    chosen = given(Knowing(), volume)
    chosen = replace(chosen, chosen=replace(chosen.chosen, distillation=Odd(value=0.0)))
    spread: list[float] = []
    generator = torch.Generator().manual_seed(0)
    stage = replace(config, num_steps=20).build(chosen)
    optimize(
        [stage],
        State(),
        generator=generator,
        on_step=lambda progress: spread.append(progress.metrics["z_variance"]),
    )
    assert 0.0 < spread[-1] < 0.9 * spread[0]


def test_processes_must_share_evenly() -> None:
    with pytest.raises(ValueError, match="3 processes cannot share the 4 objects"):
        SHARED.build(given(Knowing(), VolumeConfig(), (0, 3)))


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of the 4 views"):
        DistillConfig(num_views=6).build(given(Knowing(4), PlateConfig()))
    with pytest.raises(
        ValueError, match="orient, distortion and z_variance need a field, which Plate is not"
    ):
        distil(DistillConfig(num_steps=1, render_size=(8,), orient=1.0), given(Knowing(), PlateConfig()))


def test_a_volume_begins_with_a_mesh() -> None:
    mesh = grey_sphere(0.6, 24)
    red = mesh.replace(vertex_colors=torch.tensor([0.8, 0.1, 0.2]).expand(mesh.num_vertices, 3).contiguous())
    config = VolumeConfig(resolutions=(32,))
    volume = config.begin_from(red)
    made = volume.to_mesh(ExtractConfig(resolution=32), None)
    assert volume_iou(made, lambda points: points.norm(dim=-1) - 0.6) > 0.9
    assert made.vertex_colors is not None
    assert float((made.vertex_colors - torch.tensor([0.8, 0.1, 0.2])).abs().max()) < 0.05
    with pytest.raises(ValueError, match="not closed"):
        config.begin_from(red.replace(faces=red.faces[1:]))
    with pytest.raises(ValueError, match="PlateConfig cannot begin with a mesh"):
        PlateConfig().begin_from(red)
    begun = replace(given(Knowing(), config), init_mesh=red)
    state = distil(DistillConfig(num_steps=1, num_views=2, render_size=(8,), learning_rate=0.0), begun)
    assert torch.equal(state["representation/grid"], volume.grid)
