"""Views that show depth or normals, and views that are given: what the denoiser and the sampler promise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from diffusion.adapters.camera import camera_condition
from diffusion.backbone import Backbone, facts, load, save_backbone
from diffusion.domains import DOMAINS, domain_indices
from diffusion.errors import BackboneError
from diffusion.guidance import rescale
from diffusion.samplers import SampleStep, sample_views
from tests.diffusion.models import make_parts, make_unet, orbit

COLOR, DEPTH, NORMALS = range(3)


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pictures(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("domains") / "model"
    save_backbone(path, **make_parts(), num_views=4, image_size=64, domains=DOMAINS)
    return path


@pytest.fixture(scope="module")
def shows_all(model: Path) -> Backbone:
    return load(model)


def drawn(backbone: Backbone, cameras: torch.Tensor, seed: int = 0, **settings: Any) -> torch.Tensor:
    settings = {"num_steps": 3, "guidance_scale": 3.0} | settings
    generator = torch.Generator().manual_seed(seed)
    return sample_views(backbone, ["a red mushroom"], cameras, generator=generator, **settings)


def test_the_last_row_of_a_camera_tells_the_domain() -> None:
    cameras = orbit(2, 3)
    plain = camera_condition(cameras)
    told = camera_condition(cameras, torch.tensor([[COLOR, DEPTH, NORMALS]] * 2))
    assert torch.equal(told[:, 0], plain[:, 0])
    assert torch.equal(told[..., :12], plain[..., :12])
    assert told[0, :, 12:].tolist() == [[0, 0, 0, 1], [1, 0, 0, 1], [0, 1, 0, 1]]
    with pytest.raises(ValueError, match=r"domain must be \[2, 3\] as the cameras are, got \[2\]"):
        camera_condition(cameras, torch.tensor([0, 1]))


@torch.no_grad()
def test_colors_are_bit_for_bit_what_they_were(shows_all: Backbone) -> None:
    latents, cameras = numbers(2, 3, 4, 8, 8), orbit(2, 3)
    words = shows_all.encode_prompt(["a red mushroom"])
    plain = shows_all.predict(latents, 500, words, camera=cameras)
    colors = torch.zeros(2, 3, dtype=torch.long)
    assert torch.equal(shows_all.predict(latents, 500, words, camera=cameras, domain=colors), plain)
    depth = shows_all.predict(latents, 500, words, camera=cameras, domain=colors + DEPTH)
    normals = shows_all.predict(latents, 500, words, camera=cameras, domain=colors + NORMALS)
    for one, other in ((plain, depth), (plain, normals), (depth, normals)):
        assert float((one - other).abs().max()) > 1e-4


@torch.no_grad()
def test_views_may_come_in_any_order_and_each_at_its_own_timestep(shows_all: Backbone) -> None:
    latents, cameras = numbers(1, 4, 4, 8, 8), orbit(1, 4)
    domain, t = torch.tensor([[COLOR, DEPTH, NORMALS, COLOR]]), torch.tensor([[0, 500, 300, 999]])
    words = shows_all.encode_prompt(["a red mushroom"])
    order = [2, 0, 3, 1]
    ahead = shows_all.predict(latents, t, words, camera=cameras, domain=domain)
    mixed = shows_all.predict(
        latents[:, order], t[:, order], words, camera=cameras[:, order], domain=domain[:, order]
    )
    torch.testing.assert_close(mixed, ahead[:, order], atol=1e-5, rtol=0)
    alike = shows_all.predict(latents, torch.full((1, 4), 300), words, camera=cameras, domain=domain)
    at_once = shows_all.predict(latents, 300, words, camera=cameras, domain=domain)
    torch.testing.assert_close(alike, at_once, atol=1e-6, rtol=0)
    other = shows_all.predict(latents, t, words, camera=cameras, domain=domain.flip(1))
    assert float((other - ahead).abs().max()) > 1e-4


def test_what_was_not_learned_is_refused(backbone: Backbone, tmp_path: Path) -> None:
    domain = torch.tensor([[COLOR, DEPTH]])
    with pytest.raises(ValueError, match=r"cannot read domain; besides conditioning it takes .*camera"):
        drawn(backbone, orbit(1, 2), domains=domain)
    save_backbone(tmp_path / "some", **make_parts(), num_views=4, image_size=64, domains=["color", "normals"])
    some = load(tmp_path / "some")
    assert drawn(some, orbit(1, 2), domains=domain * NORMALS, num_steps=1).shape == (1, 2, 3, 64, 64)
    with pytest.raises(ValueError, match="domain is 'depth', allowed: color, normals"):
        drawn(some, orbit(1, 2), domains=domain)
    with pytest.raises(ValueError, match="domain is 'colour', allowed: color, depth, normals"):
        domain_indices(["colour"])  # type: ignore[list-item]


def test_the_folder_says_what_a_backbone_shows(model: Path, folder: Path, tmp_path: Path) -> None:
    known, plain = facts(model), facts(folder)
    assert known is not None
    assert plain is not None
    assert known.domains == load(model).facts.domains == DOMAINS
    assert plain.domains == load(folder).domains == ("color",)
    index = json.loads((model / "model_index.json").read_text())
    copied = tmp_path / "model"
    save_backbone(copied, **make_parts(), num_views=4, image_size=64, domains=["normals", "color"])
    save_backbone(copied, unet=make_unet(seed=3))
    assert load(copied).domains == ("color", "normals"), "it is kept, in the order of DOMAINS"
    for wrong in (["color", "smell"], ["depth"], "depth", [["color"]], {"color": 1}, None):
        index["galatea"]["domains"] = wrong
        (copied / "model_index.json").write_text(json.dumps(index))
        with pytest.raises(
            BackboneError, match=r"domains in model_index\.json must be a list of 'color' and"
        ):
            load(copied)
    plain_unet = tmp_path / "plain"
    save_backbone(plain_unet, **make_parts(camera=False), num_views=4, image_size=64, domains=DOMAINS)
    with pytest.raises(BackboneError, match="has no camera embedding to tell it which"):
        facts(plain_unet)


@pytest.mark.parametrize("sampler", ["ddim", "dpm++"])
@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
@pytest.mark.parametrize("start_timestep", [None, 700])
def test_given_views_stay_and_tell_the_others(
    shows_all: Backbone, sampler: str, guidance_scale: float, start_timestep: int | None
) -> None:
    cameras, given = orbit(2, 3), pictures(2, 3)
    fixed = torch.tensor([[True, False, False], [False, True, True]])
    seen: list[SampleStep] = []
    settings: dict[str, Any] = {
        "sampler": sampler, "guidance_scale": guidance_scale, "fixed": fixed, "start_timestep": start_timestep,
    }  # fmt: skip
    made = drawn(shows_all, cameras, init_images=given, callback=seen.append, **settings)
    assert torch.equal(made[fixed], given[fixed])
    with torch.no_grad():
        clean = shows_all.encode(given[fixed])
    assert all(torch.equal(step.latents[fixed], clean) for step in seen)
    others = given.clone()
    others[0, 0] = pictures(1, seed=1)[0]
    told = drawn(shows_all, cameras, init_images=others, **settings)
    assert float((told[0, 1:] - made[0, 1:]).abs().max()) > 1e-5
    assert torch.equal(told[1], made[1]), "the other object knows nothing of it"
    # From noise, what is not fixed of the pictures counts for nothing.
    hidden = torch.where(fixed[..., None, None, None], given, pictures(2, 3, seed=2))
    same = torch.equal(drawn(shows_all, cameras, init_images=hidden, **settings), made)
    assert same == (start_timestep is None)


def test_given_views_are_clean_at_every_step(shows_all: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    denoise = shows_all.denoise

    def watched(latents: torch.Tensor, timestep: Any, inputs: Any) -> torch.Tensor:
        asked.append((latents, timestep, inputs))
        return denoise(latents, timestep, inputs)

    monkeypatch.setattr(shows_all, "denoise", watched)
    given, fixed = pictures(1, 3), torch.tensor([[True, False, True]])
    domain = torch.tensor([[COLOR, COLOR, DEPTH]])
    drawn(shows_all, orbit(1, 3), init_images=given, fixed=fixed, domains=domain, num_steps=4)
    clean = shows_all.encode(given[fixed])
    assert [t.tolist() for _, t, _ in asked] == [[[0, t, 0]] * 2 for t in (999, 749, 499, 249)]
    for latents, _, inputs in asked:
        for row in latents:
            assert torch.equal(row[fixed[0]], clean)
        # Only the words are dropped for guidance.
        assert torch.equal(inputs.domain, domain.expand(2, 3))
        assert torch.equal(inputs.camera[0], inputs.camera[1])
    asked.clear()
    drawn(shows_all, orbit(1, 3), init_images=given, fixed=fixed, guidance_scale=1.0, num_steps=2)
    assert [len(latents) for latents, _, _ in asked] == [1, 1]


def test_no_view_given_is_as_if_nothing_were_said_of_it(shows_all: Backbone) -> None:
    none = torch.zeros(1, 3, dtype=torch.bool)
    plain = drawn(shows_all, orbit(1, 3))
    said = drawn(shows_all, orbit(1, 3), init_images=pictures(1, 3), fixed=none)
    torch.testing.assert_close(said, plain, atol=1e-5, rtol=0)
    colors = drawn(shows_all, orbit(1, 3), domains=torch.zeros(1, 3, dtype=torch.long))
    assert torch.equal(colors, plain)


def test_rescaling_leaves_out_given_views() -> None:
    guided, cond = numbers(2, 3, 4, 8, 8), numbers(2, 3, 4, 8, 8, seed=1)
    counted = torch.tensor([[False, True, True], [True, True, False]])
    found = rescale(guided, cond, 0.7, counted)
    for index, views in enumerate(([1, 2], [0, 1])):
        alone = rescale(guided[index : index + 1, views], cond[index : index + 1, views], 0.7)
        torch.testing.assert_close(found[index : index + 1, views], alone)
    whole = torch.ones(2, 3, dtype=torch.bool)
    torch.testing.assert_close(rescale(guided, cond, 0.7, whole), rescale(guided, cond, 0.7))


def test_given_views_that_cannot_be(shows_all: Backbone, single: Backbone) -> None:
    given, fixed = pictures(1, 2), torch.tensor([[True, False]])
    with pytest.raises(ValueError, match="init_images belong together with start_timestep, with fixed"):
        drawn(shows_all, orbit(1, 2), fixed=fixed)
    with pytest.raises(ValueError, match="all views of an object are fixed"):
        drawn(shows_all, orbit(1, 2), init_images=given, fixed=~fixed | fixed)
    with pytest.raises(ValueError, match=r"fixed must be bool \[1, 2\], got torch.bool \[2\]"):
        drawn(shows_all, orbit(1, 2), init_images=given, fixed=fixed[0])
    with pytest.raises(ValueError, match="do not see each other"):
        sample_views(
            single, ["a"], None, generator=torch.Generator(), init_images=given, fixed=fixed, num_steps=1
        )
