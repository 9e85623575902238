"""The sampling loop against diffusers' own pipeline, and its promises: seeded, observable, startable."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

from diffusion.backbone import Backbone
from diffusion.samplers import SampleStep, make_scheduler, plan_timesteps, sample, sample_views
from diffusion.schedule import Schedule
from tests.diffusion.models import CAPTIONS, orbit
from tests.diffusion.models import make_scheduler as noise_levels


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def oracle(schedule: Schedule, x0: torch.Tensor) -> Any:
    """A model that knows the answer: its prediction always points at x0."""
    return lambda latents, t: schedule.from_x0(x0, latents, t.round().long())


@pytest.mark.parametrize("sampler", ["ddim", "dpm++"])
@pytest.mark.parametrize("prediction_type", ["v_prediction", "sample"])
def test_a_perfect_model_is_followed_to_its_answer(sampler: Any, prediction_type: str) -> None:
    source = noise_levels(prediction_type)
    x0 = torch.randn(2, 4, 4, 8, 8, generator=generator(1))
    noise = torch.randn(2, 4, 4, 8, 8, generator=generator(2))
    scheduler = make_scheduler(source, sampler)
    out = sample(oracle(Schedule.from_scheduler(source), x0), noise, scheduler, num_steps=8)
    torch.testing.assert_close(out, x0, atol=2e-3, rtol=0)


@pytest.mark.parametrize("sampler", ["ddim", "dpm++"])
def test_a_perfect_flow_model_is_followed_too(sampler: Any) -> None:
    source = FlowMatchEulerDiscreteScheduler(shift=3.0)
    x0, noise = (torch.randn(1, 4, 8, 8, generator=generator(seed)) for seed in (1, 2))
    scheduler = make_scheduler(source, sampler)
    flow = noise - x0  # the straight path's velocity, the same everywhere
    out = sample(lambda latents, t: flow, noise, scheduler, num_steps=6)
    torch.testing.assert_close(out, x0, atol=5e-3, rtol=0)


def test_steps_are_trailing_and_may_start_in_the_middle() -> None:
    scheduler = make_scheduler(noise_levels(), "ddim")
    assert plan_timesteps(scheduler, 4).tolist() == [999, 749, 499, 249]
    assert plan_timesteps(scheduler, 4, 600).tolist() == [499, 249]
    assert plan_timesteps(make_scheduler(noise_levels(), "dpm++"), 4, 749).tolist() == [749, 499, 249]
    with pytest.raises(ValueError, match=r"start_timestep must be in \[249, 1000\] with 4 steps, got 100"):
        plan_timesteps(scheduler, 4, 100)
    with pytest.raises(ValueError, match="num_steps must be at least 1, got 0"):
        plan_timesteps(scheduler, 0)
    with pytest.raises(ValueError, match=r"num_steps must be at most 1000, the timesteps .*, got 1001"):
        plan_timesteps(scheduler, 1001)
    with pytest.raises(ValueError, match=r"sampler is 'euler', allowed: ddim, dpm\+\+"):
        make_scheduler(scheduler, "euler")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("sampler", ["ddim", "dpm++"])
def test_starting_in_the_middle_continues_the_same_path(sampler: Any) -> None:
    """Latents noised to the middle by hand are those of the run, and lead to the same answer."""
    source = noise_levels()
    schedule = Schedule.from_scheduler(source)
    x0, noise = (torch.randn(1, 4, 8, 8, generator=generator(seed)) for seed in (1, 2))
    scheduler = make_scheduler(source, sampler)
    seen: list[SampleStep] = []
    sample(oracle(schedule, x0), noise, scheduler, num_steps=10, callback=seen.append)
    middle = schedule.add_noise(x0, noise, 499)
    torch.testing.assert_close(seen[4].latents, middle, atol=2e-3, rtol=0)
    rest: list[SampleStep] = []
    sample(oracle(schedule, x0), middle, scheduler, num_steps=10, start_timestep=499, callback=rest.append)
    assert [step.timestep for step in rest] == [step.timestep for step in seen[5:]]
    torch.testing.assert_close(rest[-1].latents, x0, atol=2e-3, rtol=0)


def test_the_callback_sees_every_step_and_the_given_scheduler_stays_clean() -> None:
    scheduler = make_scheduler(noise_levels(), "dpm++")
    seen: list[SampleStep] = []
    zeros = torch.zeros(1, 4, 8, 8)
    out = sample(lambda latents, t: latents, zeros + 1, scheduler, num_steps=5, callback=seen.append)
    assert [(step.step, step.num_steps, step.timestep) for step in seen] == [
        (0, 5, 999), (1, 5, 799), (2, 5, 599), (3, 5, 399), (4, 5, 199),
    ]  # fmt: skip
    assert seen[-1].latents is out
    assert scheduler.num_inference_steps is None
    assert scheduler.model_outputs == [None, None]


def test_equal_to_diffusers_own_pipeline(single: Backbone) -> None:
    """One view, classifier-free guidance, rescale, negative prompt, DDIM, decode: number by number."""
    scheduler = DDIMScheduler.from_config(
        single.scheduler.config, timestep_spacing="trailing", clip_sample=False
    )
    pipeline: Any = StableDiffusionPipeline(
        vae=single.vae,
        text_encoder=single.text_encoder,
        tokenizer=single.tokenizer,
        unet=single.unet,
        scheduler=scheduler,  # pyright: ignore[reportArgumentType]
        safety_checker=None,  # pyright: ignore[reportArgumentType]
        feature_extractor=None,  # pyright: ignore[reportArgumentType]
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    prompts = CAPTIONS[:2]
    latents = torch.randn(2, 1, 4, 8, 8, generator=generator(3))
    # The pipeline leaves out the VAE's shift, which Stable Diffusion does not have.
    shift, single._shift = single._shift, 0.0
    try:
        ours = sample_views(
            single, prompts, None, generator=generator(3), guidance_scale=4.0, guidance_rescale=0.6,
            num_steps=6, negative_prompt="a blue cube",
        )  # fmt: skip
    finally:
        single._shift = shift
    theirs = pipeline(
        prompts, latents=latents[:, 0], guidance_scale=4.0, guidance_rescale=0.6, num_inference_steps=6,
        negative_prompt=["a blue cube"] * 2, height=64, width=64, output_type="pt",
    ).images  # fmt: skip
    assert ours.shape == (2, 1, 3, 64, 64)
    torch.testing.assert_close(ours[:, 0], theirs, atol=2e-5, rtol=0)


def test_views_are_seeded_and_follow_prompt_negative_and_guidance(backbone: Backbone) -> None:
    def run(prompt: str = CAPTIONS[0], seed: int = 0, **settings: Any) -> torch.Tensor:
        return sample_views(
            backbone, [prompt], orbit(1, 2), generator=generator(seed), num_steps=3, **settings
        )

    torch.manual_seed(1)
    first = run()
    torch.manual_seed(2)
    assert torch.equal(run(), first)
    assert first.shape == (1, 2, 3, 64, 64)
    assert 0.0 <= float(first.min()) <= float(first.max()) <= 1.0
    assert not first.requires_grad
    assert not first.is_inference()
    for other in (
        run(seed=1),
        run(prompt=CAPTIONS[1]),
        run(negative_prompt="a blue cube"),
        run(guidance_scale=1.0),
        run(guidance_rescale=0.0),
        run(sampler="dpm++"),
    ):
        assert not torch.equal(other, first)


def test_one_prompt_may_serve_all_objects_and_each_view_may_have_its_own(backbone: Backbone) -> None:
    settings: dict[str, Any] = {"num_steps": 2, "guidance_scale": 3.0}
    one = sample_views(backbone, [CAPTIONS[0]], orbit(2, 2), generator=generator(), **settings)
    each = sample_views(backbone, [CAPTIONS[0]] * 4, orbit(2, 2), generator=generator(), **settings)
    torch.testing.assert_close(one, each, atol=1e-5, rtol=0)
    encoded = backbone.encode_prompt([CAPTIONS[0]])
    assert torch.equal(sample_views(backbone, encoded, orbit(2, 2), generator=generator(), **settings), one)


def test_sdedit_stays_nearer_to_its_start_the_later_it_starts(backbone: Backbone) -> None:
    with torch.no_grad():
        start = backbone.decode(torch.randn(1, 2, 4, 8, 8, generator=generator(5)))
        reference = backbone.decode(backbone.encode(start))
    distances = []
    for t in (99, 499, 899):
        steps: list[SampleStep] = []
        out = sample_views(
            backbone, ["a red mushroom"], orbit(1, 2), generator=generator(), num_steps=10,
            guidance_scale=1.0, init_images=start, start_timestep=t, callback=steps.append,
        )  # fmt: skip
        assert [step.timestep for step in steps] == list(range(t, 0, -100))
        distances.append(float((out - reference).square().mean()))
    assert distances == sorted(distances)


def test_misuse_is_refused(backbone: Backbone, single: Backbone) -> None:
    images = torch.zeros(1, 2, 3, 64, 64)
    with pytest.raises(ValueError, match="belong together"):
        sample_views(backbone, ["a"], orbit(1, 2), generator=generator(), init_images=images)
    with pytest.raises(ValueError, match=r"init_images must be \[1, 4, 3, H, W\]"):
        sample_views(
            backbone, ["a"], orbit(1, 4), generator=generator(), init_images=images, start_timestep=500
        )
    with pytest.raises(ValueError, match=r"prompts must be 1, 2 \(one per object\) or 8 .* got 3"):
        sample_views(backbone, CAPTIONS, orbit(2, 4), generator=generator())
    with pytest.raises(ValueError, match=r"guidance_rescale must lie in \[0, 1\], got 2"):
        sample_views(backbone, ["a"], orbit(1, 2), generator=generator(), guidance_rescale=2.0)
    with pytest.raises(ValueError, match=r"cameras must be c2w \[B, V, 4, 4\], got \[2, 4, 4\]"):
        sample_views(backbone, ["a"], orbit(1, 2)[0], generator=generator())
    with pytest.raises(ValueError, match="guidance_scale must be a finite number, got nan"):
        sample_views(backbone, ["a"], orbit(1, 2), generator=generator(), guidance_scale=float("nan"))
    with pytest.raises(ValueError, match="prompts must be a list of strings, got one string"):
        sample_views(backbone, "a red mushroom", orbit(1, 2), generator=generator())
    with pytest.raises(ValueError, match=r"prompts must be a list of one string or more, got \[\]"):
        sample_views(backbone, [], orbit(1, 2), generator=generator())
    with pytest.raises(ValueError, match="camera is missing"):
        sample_views(backbone, ["a"], None, generator=generator())
    with pytest.raises(ValueError, match="has no camera embedding"):
        sample_views(single, ["a"], orbit(1, 4), generator=generator())
