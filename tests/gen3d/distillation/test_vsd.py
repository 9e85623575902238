"""VSD: the backbone untouched, its LoRA in one vector, what it learns, and a run that is killed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from diffusion.adapters.lora import LowRank
from diffusion.backbone import load
from diffusion.conditioning import Conditioning, Inputs
from diffusion.denoisers.unet import UNetDenoiser
from gen3d.camera_sampling.orbit import Orbit
from gen3d.cameras import Cameras, orbit
from gen3d.distillation.base import Scores
from gen3d.distillation.vsd import VSD
from gen3d.optimize import optimize
from gen3d.priors.base import Request
from gen3d.priors.config import TextPriorConfig
from gen3d.priors.text import TextPrior, TunedText
from gen3d.representations.config import VolumeConfig
from gen3d.stages.base import Chosen, Given
from gen3d.stages.config import DistillConfig
from gen3d.state import State
from tests.gen3d.small_prior import Small, golden_of, gradient_of, numbers
from tests.gen3d.test_distillation import Known


class Tunable(Small):
    """The small UNet with a LoRA on it."""

    def __init__(self) -> None:
        super().__init__()
        self.model = LowRank(self.denoiser.unet, rank=2, multiview=False)

    def tuned(self, rank: int) -> TunedText:
        return TunedText(self.model, self.words["cond"])


class Moved(Tunable):
    """Whose LoRA has learnt something: every number of it is drawn."""

    def tuned(self, rank: int) -> TunedText:
        class Begun(TunedText):
            def begin(self, generator: torch.Generator) -> Tensor:
                return 0.1 * numbers(self.model.num_weights, seed=5)

        return Begun(self.model, self.words["cond"])


@pytest.fixture(scope="module")
def prior() -> Tunable:
    return Tunable()


def scores_of(prior: Small, latents: Tensor, noise: Tensor) -> Scores:
    t, cameras = torch.tensor([200, 700]), orbit([0.0, 90.0], 0.0)
    noisy = prior.schedule.add_noise(latents, noise, t)
    return Scores(prior=prior, noisy=noisy, timestep=t, cameras=cameras, together=("uncond", "cond"))


def test_before_it_has_learnt_the_gradient_is_that_of_guidance(prior: Tunable) -> None:
    latents, noise = numbers(2, 1, 4, 8, 8, seed=7), numbers(2, 1, 4, 8, 8, seed=8)
    scores = scores_of(prior, latents, noise)
    expected = scores.sigma() ** 2 * 6.5 * (scores.eps("cond") - scores.eps("uncond"))
    torch.testing.assert_close(gradient_of(VSD(rank=2), prior), expected, rtol=1e-6, atol=1e-9)


def test_gradients_are_as_they_were() -> None:
    golden = (0.00252226118, 0.0282364072, 0.0440808856)
    assert golden_of(gradient_of(VSD(rank=2), Moved())) == pytest.approx(golden, rel=1e-6)


@pytest.mark.parametrize("has_camera", [True, False])
def test_the_backbone_is_as_before_and_no_weight_is_copied(has_camera: bool) -> None:
    if has_camera:
        unet, views = load("tiny").unet, 4
    else:
        unet, views = Small().denoiser.unet.float(), 1
    assert isinstance(unet, UNet2DConditionModel)
    before = {name: each.data_ptr() for name, each in unet.named_parameters()}
    modules = [name for name, _ in unet.named_modules()]
    words = torch.randn(1, 4, 128 if has_camera else 16, generator=torch.Generator().manual_seed(1))
    denoiser = UNetDenoiser(unet, multiview=views > 1)
    latents = torch.randn(1, views, denoiser.in_channels, 16, 16, generator=torch.Generator().manual_seed(2))
    camera = orbit(torch.arange(views) * 90.0, 10.0).c2w[None]
    inputs = Inputs(conditioning=Conditioning(embeds=words), camera=camera if has_camera else None)
    with torch.no_grad():
        expected = denoiser(latents, 300, inputs)
    state = torch.get_rng_state()
    model = LowRank(unet, rank=4, multiview=views > 1)
    told = Inputs(conditioning=Conditioning(embeds=words), camera=camera)
    weights = model.begin(torch.Generator().manual_seed(0))
    with torch.no_grad():
        same, other = model(weights, latents, 300, told), model(weights + 0.05, latents, 300, told)
        again = denoiser(latents, 300, inputs)
    torch.testing.assert_close(same, expected, rtol=1e-5, atol=1e-5)
    assert float((other - expected).abs().max()) > 1e-3
    assert torch.equal(again, expected)
    assert torch.equal(torch.get_rng_state(), state), "nothing draws from torch's own generator"
    assert before == {name: each.data_ptr() for name, each in unet.named_parameters()}
    assert modules == [name for name, _ in unet.named_modules()]
    shared = {each.data_ptr() for each in model._call.parameters() if each.device.type != "meta"}
    assert shared <= set(before.values())
    with pytest.raises(ValueError, match=r"weights must be \[\d+\], got \[3\]"):
        model(weights[:3], latents, 300, told)


def test_what_it_learns_by_has_the_gradient_of_finite_differences() -> None:
    prior, loss = Moved(), VSD(rank=2)
    latents, noise = numbers(2, 1, 4, 8, 8, seed=7), numbers(2, 1, 4, 8, 8, seed=8)
    scores = scores_of(prior, latents, noise)

    def at(weights: Tensor) -> Tensor:
        return loss.training_loss(scores, latents, {"lora": weights}, torch.Generator().manual_seed(3))

    weights = prior.tuned(2).begin(torch.Generator()).requires_grad_(True)
    at(weights).backward()
    assert weights.grad is not None
    direction = numbers(len(weights), seed=4)
    direction /= direction.norm()
    with torch.no_grad():
        moved = (at(weights + 1e-4 * direction) - at(weights - 1e-4 * direction)) / 2e-4
    assert float(weights.grad @ direction) == pytest.approx(float(moved), rel=1e-5)


def test_it_learns_the_pictures_there_are() -> None:
    """After some steps the LoRA predicts the noise in these pictures better than the prior, which expects others."""
    prior = TextPrior(TextPriorConfig(), Request(backbone=load("tiny"), prompt="a red mushroom"))
    loss, cameras = VSD(), orbit(torch.arange(4) * 90.0, 10.0)
    color = torch.tensor([0.1, 0.9, 0.3]).view(1, 1, 3, 1, 1)
    latents = prior.encode(color.expand(1, 4, 3, prior.image_size, prior.image_size)[..., :64, :64])
    scores = Scores(prior=prior, noisy=latents, timestep=torch.tensor([0]), cameras=cameras)
    weights = prior.tuned(4).begin(torch.Generator().manual_seed(0)).requires_grad_(True)

    def error(seed: int) -> Tensor:
        return loss.training_loss(scores, latents, {"lora": weights}, torch.Generator().manual_seed(seed))

    def errors() -> float:
        with torch.no_grad():
            return sum(float(error(seed)) for seed in range(100, 106))

    before, learner = errors(), torch.optim.Adam([weights], lr=0.01)
    for seed in range(15):
        learner.zero_grad()
        error(seed).backward()
        learner.step()
    assert errors() < 0.8 * before


def test_cameras_are_left_out_for_some(prior: Tunable) -> None:
    seen: list[Tensor] = []

    class Watched(TunedText):
        def predict(self, *given: object) -> Tensor:
            seen.append(given[4])  # type: ignore[arg-type]
            return super().predict(*given)  # type: ignore[arg-type]

    class Watching(Tunable):
        def tuned(self, rank: int) -> TunedText:
            return Watched(self.model, self.words["cond"])

    watching = Watching()
    latents = numbers(2, 1, 4, 8, 8, seed=7)
    scores = scores_of(watching, latents, latents)
    weights = {"lora": prior.tuned(2).begin(torch.Generator())}
    for share, expected in ((0.0, True), (1.0, False)):
        with torch.no_grad():
            VSD(rank=2, camera_dropout=share).training_loss(scores, latents, weights, torch.Generator())
        assert seen[-1].tolist() == [expected] * 2
    moved = 0.1 * numbers(prior.model.num_weights, seed=5)
    made = [
        prior.tuned(2).predict(
            moved, latents, torch.tensor([200, 700]), scores.cameras, torch.tensor([known] * 2)
        )
        for known in (True, False)
    ]
    assert float((made[0] - made[1]).abs().max()) > 1e-3


@pytest.mark.parametrize(
    "settings", [{"guidance_scale": -1.0}, {"rank": 0}, {"lora_rate": 0.0}, {"camera_dropout": 1.5}]
)
def test_bad_settings_are_named(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"vsd {next(iter(settings))}"):
        VSD(**settings)  # type: ignore[arg-type]


def test_a_prior_that_cannot_learn_is_refused_before_any_work() -> None:
    class Fixed(Known):
        def predict(
            self, latents: Tensor, timestep: Tensor, cameras: Cameras, which: Sequence[str]
        ) -> Tensor:
            raise AssertionError

    with pytest.raises(ValueError, match="a Fixed has no model that could learn"):
        VSD().check(Fixed())


def test_a_killed_run_goes_on_bit_for_bit_with_its_lora() -> None:
    backbone = load("tiny")
    chosen = Chosen(
        prior=TextPriorConfig(),
        representation=VolumeConfig(resolutions=(8,), num_samples=8),
        distillation=VSD(),
    )
    given = Given(chosen=chosen, request=Request(backbone=backbone, prompt="a red mushroom"))
    config = DistillConfig(num_steps=3, num_views=4, render_size=(16,), cameras=Orbit())
    saves: list[tuple[dict[str, Tensor], dict[str, str]]] = []

    def run(**extra: object) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(0)
        return optimize([config.build(given)], State(), generator=generator, **extra).tensors()  # type: ignore[arg-type]

    final = run(checkpoint_every=1, save=lambda step, tensors, about: saves.append((tensors, about)))
    first = saves[0][0]["distillation/guidance/lora"]
    assert "adam/distillation/guidance/lora/exp_avg" in saves[0][0]
    assert not torch.equal(first, final["distillation/guidance/lora"])
    for saved in saves[:-1]:
        again = run(resume=saved)
        assert again.keys() == final.keys()
        assert all(torch.equal(again[name], final[name]) for name in final)


def test_a_text_prior_tells_its_lora_no_view() -> None:
    prior = TextPrior(TextPriorConfig(joint_views=1), Request(backbone=load("tiny"), prompt="a red mushroom"))
    assert prior.tuned(2) is prior.tuned(2)
    assert torch.equal(prior.tuned(2).words.embeds, prior._encode(prior.prompt).embeds)
