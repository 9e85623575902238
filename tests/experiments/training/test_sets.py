"""What a step of the UNet's training sees: sets of colours, depth and normals, some of them given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffusion.adapters.camera import camera_condition
from diffusion.backbone import Backbone, load
from diffusion.domains import DOMAINS
from experiments.training.config import SetsConfig
from experiments.training.multiview import MultiviewRecipe
from experiments.training.sets import Pool, draw_sets
from experiments.world.dataset import Shards
from tests.diffusion.models import orbit
from video.pixels import from_uint8

VIEWS, GUESTS = 4, 2
ALL = SetsConfig(domains=0.5, given=0.5, guests=0.5, set_views=(4, 8))


def shards(scenes: int = 3, seed: int = 0) -> Shards:
    """Noise, with all that a set can have."""
    generator = torch.Generator().manual_seed(seed)

    def noise(views: int, channels: int) -> Tensor:
        return torch.randint(
            0, 256, (scenes, views, channels, 32, 32), generator=generator, dtype=torch.uint8
        )

    return Shards(
        images=noise(VIEWS, 3),
        masks=noise(VIEWS, 1),
        c2w=orbit(scenes, VIEWS),
        fovy_deg=torch.full((scenes,), 40.0),
        captions=["a red ball", "a blue cube", "a green cat"][:scenes],
        kinds=["thing"] * scenes,
        depth=noise(VIEWS, 1),
        normals=noise(VIEWS, 3),
        guests=noise(GUESTS, 3),
        guest_masks=noise(GUESTS, 1),
        guest_c2w=orbit(scenes, GUESTS),
    )


def without(data: Shards) -> Shards:
    """As sets were before there were depth, normals and guests."""
    return replace(data, depth=None, normals=None, guests=None, guest_masks=None, guest_c2w=None)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load("tiny")


@pytest.fixture(scope="module")
def pool() -> Pool:
    """Without pictures."""
    pictures = 3 * VIEWS + GUESTS
    return Pool(
        latents=torch.zeros(1, pictures, 1, 1, 1),
        camera=torch.zeros(1, pictures, 16),
        num_views=VIEWS,
        num_guests=GUESTS,
    )


def recipe(backbone: Backbone, data: Shards | None = None, **settings: Any) -> MultiviewRecipe:
    torch.manual_seed(0)
    return MultiviewRecipe(
        backbone, data or shards(), shards(2, 1) if data is None else data, channels=(32, 32), **settings
    )


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_pool_holds_every_picture_with_its_camera_and_its_domain(backbone: Backbone) -> None:
    data = shards()
    pool = Pool.of(backbone, data, ALL, None)
    assert (len(pool), pool.num_views, pool.num_guests, pool.first_guest) == (3, VIEWS, GUESTS, 3 * VIEWS)
    assert pool.latents.shape[:2] == pool.camera.shape[:2] == (3, 3 * VIEWS + GUESTS)
    assert data.depth is not None
    assert data.normals is not None
    assert data.guests is not None
    assert data.guest_c2w is not None
    shown = [data.images, data.depth.expand(-1, -1, 3, -1, -1), data.normals, data.guests]
    with torch.no_grad():
        latents = backbone.encode(from_uint8(torch.cat(shown, dim=1)))
    torch.testing.assert_close(pool.latents.float(), latents, atol=0.1, rtol=0.1)  # bfloat16 made them
    for index in range(len(DOMAINS)):
        domain = torch.full((3, VIEWS), index)
        rows = pool.camera[:, index * VIEWS : (index + 1) * VIEWS]
        assert torch.equal(rows, camera_condition(data.c2w, domain))
    assert torch.equal(pool.camera[:, -GUESTS:], camera_condition(data.guest_c2w))
    latents, camera = pool.pick(torch.tensor([2, 0]), torch.tensor([[0, 5], [13, 1]]))
    assert torch.equal(latents[0, 1], pool.latents[2, 5])
    assert torch.equal(camera[1, 0], pool.camera[0, 13])


def test_what_is_not_asked_for_is_not_encoded(backbone: Backbone) -> None:
    plain = Pool.of(backbone, shards(), SetsConfig(), None)
    assert plain.latents.shape[1] == VIEWS
    assert Pool.of(backbone, shards(), SetsConfig(given=1.0), None).latents.shape[1] == VIEWS


def test_views_in_colors_are_what_they_were(backbone: Backbone) -> None:
    """The numbers are those of the recipe before it knew anything else."""
    drawn = generator()
    state = drawn.get_state()
    pool = Pool.of(backbone, shards(), SetsConfig(), None)
    sets = draw_sets(SetsConfig(), pool, 5, drawn)
    assert torch.equal(drawn.get_state(), state)
    assert sets.picks.tolist() == [[0, 1, 2, 3]] * 5
    assert not sets.given.any()

    def old(seed: int) -> Shards:
        return Shards(
            images=torch.randint(0, 256, (2, 4, 3, 32, 32), generator=generator(seed), dtype=torch.uint8),
            masks=torch.full((2, 4, 1, 32, 32), 255, dtype=torch.uint8),
            c2w=torch.eye(4).expand(2, 4, 4, 4),
            fovy_deg=torch.full((2,), 40.0),
            captions=["a red ball", "a blue cube"],
            kinds=["thing", "thing"],
        )

    torch.manual_seed(0)
    learned, drawn = MultiviewRecipe(load("tiny"), old(0), old(1), channels=(32, 32)), generator()
    losses = [float(learned.loss(4, drawn)[0].detach()) for _ in range(3)]
    assert losses == pytest.approx([0.5438550710678101, 0.4014711380004883, 0.5331848859786987], rel=1e-4)
    measured = {
        "error": 0.9948526620864868,
        "weighted": 0.9977357983589172,
        "denoised_db": 0.8785903453826904,
    }
    assert learned.validate() == pytest.approx(measured, rel=1e-4)


@pytest.mark.parametrize("size", [4, 8, 12])
def test_mixed_sets(pool: Pool, size: int) -> None:
    config = SetsConfig(domains=1.0, set_views=(size,))
    picks = draw_sets(config, pool, 3000, generator()).picks
    assert picks.shape == (3000 * VIEWS // size, size), "as many pictures, whatever the size of a set"
    assert all(len(set(row)) == size for row in picks.tolist()), "no picture twice"
    assert 0 <= int(picks.min()) <= int(picks.max()) < 3 * VIEWS
    domains, cameras = picks // VIEWS, picks % VIEWS
    counts = torch.bincount(domains.flatten(), minlength=3) / domains.numel()
    if size == 4:
        assert counts.tolist() == pytest.approx([0.5, 0.25, 0.25], abs=0.06)
    assert counts[0] == counts.max()
    num_cameras = torch.tensor([len(set(row)) for row in cameras.tolist()])
    if size == 4:
        assert 0.25 < float((num_cameras == VIEWS).float().mean()) < 0.45, "different cameras"
        assert 0.55 < float((num_cameras == 2).float().mean()) < 0.75, "the same ones in several domains"
    else:
        assert float((num_cameras == 4).float().mean()) > 0.9
    if size <= 2 * VIEWS:
        half = size // 2
        beside = (cameras[:, :half] == cameras[:, half:]).all(dim=1)
        paired = (
            beside & (domains[:, :half] == 0).all(dim=1) & (domains[:, half:] == domains[:, -1:]).all(dim=1)
        )
        assert 0.25 < float(paired.float().mean()) < 0.5, "colours, and one other domain by the same cameras"


def test_a_share_of_the_sets_is_mixed(pool: Pool) -> None:
    picks = draw_sets(SetsConfig(domains=0.3), pool, 3000, generator()).picks
    plain = (picks == torch.arange(VIEWS)).all(dim=1)
    # A mixed set is four colours by chance once in thirty times or so.
    assert 0.68 < float(plain.float().mean()) < 0.75
    sizes = {draw_sets(ALL, pool, 6, generator(seed)).picks.shape for seed in range(20)}
    assert sizes == {(6, 4), (3, 8)}


@pytest.mark.parametrize("domains", [0.0, 1.0])
def test_given_slots(pool: Pool, domains: float) -> None:
    config = SetsConfig(domains=domains, given=0.5, guests=0.4)
    sets = draw_sets(config, pool, 4000, generator())
    has = sets.given.any(dim=1)
    assert float(has.float().mean()) == pytest.approx(0.5, abs=0.03)
    number = sets.given.sum(dim=1)[has]
    assert int(number.max()) == VIEWS - 1, "one at least is learned"
    assert float((number == 1).float().mean()) > 0.5
    assert bool((number == 2).any())
    is_guest = sets.picks >= pool.first_guest
    assert bool((is_guest <= sets.given).all()), "guests are only given"
    if not domains:
        assert float(is_guest[sets.given].float().mean()) == pytest.approx(0.4, abs=0.03)
        return
    of_color = (sets.picks < VIEWS) | is_guest
    assert 0.85 < float(of_color[sets.given].float().mean()) < 1.0, "mostly colours"
    left = (of_color & ~sets.given).sum(dim=1)[has]
    assert float((left == 0).float().mean()) > 0.4, "often depth and normals alone are learned"


def test_given_slots_are_clean_and_not_learned(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    learned = recipe(backbone, sets=SetsConfig(given=1.0, given_drop_text=1.0))
    seen: dict[str, Any] = {}
    forward, draw = learned.unet.forward, draw_sets

    def watched(sample: Tensor, timestep: Tensor, *args: Any, **kwargs: Any) -> Any:
        seen.update(sample=sample, timestep=timestep, words=args[0])
        return forward(sample, timestep, *args, **kwargs)

    def drawn(*args: Any) -> Any:
        seen["sets"] = draw(*args)
        return seen["sets"]

    monkeypatch.setattr(learned.unet, "forward", watched)
    monkeypatch.setattr("experiments.training.multiview.draw_sets", drawn)
    learned.loss(6, generator())
    given = seen["sets"].given.flatten()
    assert bool((seen["timestep"][given] == 0).all())
    # Each set has one noise level.
    times = seen["timestep"].view(6, VIEWS)
    assert all(len(set(row[~own].tolist())) == 1 for row, own in zip(times, seen["sets"].given, strict=True))
    kept = learned.train.latents.float().flatten(0, 1)
    clean = torch.tensor([bool((kept == row).flatten(1).all(1).any()) for row in seen["sample"]])
    assert torch.equal(clean, given)
    assert all(torch.equal(row, seen["words"][0]) for row in seen["words"]), "without a caption"

    def loss(wrong: float) -> float:
        def predict(
            latents: Tensor, camera: Tensor, t: Tensor, tokens: Tensor, noise: Tensor, given: Tensor
        ) -> Any:
            return (
                wrong * given[..., None, None, None] + 0 * latents.float(),
                0 * latents.float() + 1.0,
                latents,
            )

        monkeypatch.setattr(learned, "_predict", predict)
        return float(learned.loss(6, generator())[0])

    assert loss(0.0) == loss(1e6) == pytest.approx(float(learned.weights.mean()), rel=1e-5)


def test_everything_at_once_learns_and_is_measured(backbone: Backbone) -> None:
    learned = recipe(backbone, sets=ALL)
    for seed in range(3):
        loss, _ = learned.loss(3, generator(seed))
        loss.backward()
        assert bool(loss.isfinite())
    measured = learned.validate()
    assert list(measured) == ["error", "weighted", "denoised_db", "depth_db", "normals_db", "given_db"]
    plain = recipe(load("tiny")).validate()
    learned = recipe(load("tiny"), sets=ALL)
    known = learned.validate()
    assert {name: known[name] for name in plain} == pytest.approx(plain, rel=1e-6), "as it always was"


@pytest.mark.parametrize("name", ["depth_db", "normals_db", "given_db"])
def test_what_is_measured_of_what(backbone: Backbone, name: str) -> None:
    """A UNet that is right about some slots alone has less than another only where those count."""
    learned = recipe(backbone, sets=ALL)
    asked: list[tuple[Tensor, Tensor]] = []

    def right(
        latents: Tensor, camera: Tensor, t: Tensor, tokens: Tensor, noise: Tensor, given: Tensor
    ) -> Any:
        asked.append((camera, given))
        x0 = latents.float()
        x_t = learned.schedule.add_noise(x0, noise, t)
        domain = camera[..., 12] + 2 * camera[..., 13]
        counts = ~given if name == "given_db" else domain == DOMAINS.index(name.removesuffix("_db"))  # type: ignore[arg-type]
        target = learned.schedule.target(x0, noise, t)
        return (
            target + 0.001 * counts[..., None, None, None] + 100.0 * ~counts[..., None, None, None],
            target,
            x_t,
        )

    learned._predict = right  # type: ignore[method-assign]
    assert learned.validate()[name] > 30
    camera, given = asked[["depth_db", "normals_db", "given_db"].index(name) + 1]
    if name == "given_db":
        assert given.tolist() == [[True, False, False, False]] * 2
        return
    shown = (camera[..., 12] + 2 * camera[..., 13])[0].tolist()
    assert shown == [0.0, 0.0] + [float(DOMAINS.index(name.removesuffix("_db")))] * 2  # type: ignore[arg-type]
    assert torch.equal(camera[:, :2, :12], camera[:, 2:, :12]), "beside colours by the same cameras"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SetsConfig(domains=1.5), "sets domains must lie in 0..1, got 1.5"),
        (
            lambda: SetsConfig(given_drop_text=0.5),
            "given_drop_text is 0.5, which has no effect while sets given is 0",
        ),
        (lambda: SetsConfig(guests=0.5), "sets guests is 0.5, which has no effect while sets given is 0"),
        (
            lambda: SetsConfig(set_views=(8,)),
            r"set_views is \(8,\), which has no effect while sets domains is 0",
        ),
        (lambda: SetsConfig(domains=1.0).check_data(4, False, 0), r"give data\.domains=true"),
        (lambda: SetsConfig(given=1.0, guests=0.1).check_data(4, True, 0), r"give data\.num_guests=2"),
        (lambda: SetsConfig(given=1.0).check_data(1, True, 0), r"give data\.num_views=4"),
        (
            lambda: SetsConfig(domains=1.0, set_views=(4, 13)).check_data(4, True, 0),
            r"sets\.set_views must lie in 4\.\.12 for 4 views a scene, got \[4, 13\]",
        ),
    ],
)
def test_sets_that_cannot_be(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_data_without_depth_is_refused(backbone: Backbone) -> None:
    with pytest.raises(ValueError, match="the pictures come without depth and normals"):
        recipe(backbone, without(shards()), sets=SetsConfig(domains=0.5))


@pytest.mark.slow
def test_the_folder_says_what_was_learned(galatea: Callable[..., Any], tmp_path: Path) -> None:
    small = (
        "experiment=train/tiny_multiview", "threads=1", "workers=1", "data.num_scenes=2", "data.size=64",
        "held_out_scenes=2", "loop.steps=1", "loop.batch_size=1", "model=m",
    )  # fmt: skip
    outcome = galatea(*small, "sets.domains=0.5", "continue_from=tiny", "out=refused")
    assert outcome.status == 2
    assert "give data.domains=true" in outcome.err[-1]
    assert list(tmp_path.iterdir()) == []
    made = ("data.domains=true", "data.num_guests=1", "data_folder=d")
    outcome = galatea(
        *small,
        *made,
        "sets.domains=0.5",
        "sets.given=0.5",
        "sets.guests=0.5",
        "continue_from=tiny",
        "out=first",
    )
    assert outcome.status == 0, outcome.err
    assert load(tmp_path / "m").domains == DOMAINS
    outcome = galatea(*small[:-1], "model=n", *made, "continue_from=./m", "out=second")
    assert outcome.status == 0, outcome.err
    assert load(tmp_path / "n").domains == DOMAINS, "what it continues from has them"
    outcome = galatea(*small[:-1], "model=n", *made, "out=third")
    assert outcome.status == 0, outcome.err
    assert load(tmp_path / "n").domains == ("color",), "a UNet that learned anew knows colours alone"
