"""Taking light out of colours: known light on known colours, and light that is not there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gen3d import meshing
from gen3d.asset import Mesh
from gen3d.delight import Lighting, Samples, fit_lighting, harmonics, occlusion, remove_light
from gen3d.delight_config import DelightConfig

Colors = Callable[[Tensor], Tensor]
CONFIG = DelightConfig()
ORANGE, TEAL, WHITE = (0.8, 0.35, 0.05), (0.05, 0.4, 0.45), (0.85, 0.85, 0.82)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sphere(count: int = 4000) -> Tensor:
    return F.normalize(torch.randn(count, 3, generator=generator(7)), dim=-1)


def patches(normals: Tensor) -> Tensor:
    """Three colours in patches that have nothing to do with up and down or left and right."""
    index = ((normals * 4.0 + torch.tensor([0.3, 1.1, 2.2])).sin().prod(dim=-1) * 6.0).floor().long() % 3
    return torch.tensor([ORANGE, TEAL, WHITE])[index]


def lamp(normals: Tensor) -> Tensor:
    """A soft lamp from the upper right over an even light: 1 at its best, 0.4 at its least."""
    towards = F.normalize(torch.tensor([0.5, 0.7, 0.5]), dim=0)
    return 0.4 + 0.6 * (0.5 + 0.5 * (normals @ towards)) ** 2


def seen(normals: Tensor, albedo: Tensor, shading: Tensor, facing: Tensor | None = None) -> Samples:
    """Samples of a unit ball."""
    count = len(normals)
    return Samples(
        colors=albedo * shading[:, None],
        points=normals,
        normals=normals,
        facing=torch.ones(count) if facing is None else facing,
        occlusion=torch.zeros(count),
        weights=torch.ones(count),
    )


def corrected(samples: Samples, config: DelightConfig = CONFIG) -> Tensor:
    found = fit_lighting(samples, config, generator())
    shading = found.shading(samples.normals, samples.facing, samples.occlusion)
    return remove_light(samples.colors, shading, config)


def error(colors: Tensor, albedo: Tensor) -> float:
    return float((colors - albedo).abs().mean())


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_a_lamp_is_found_and_taken_out(noise: float) -> None:
    normals = sphere()
    albedo, shading = patches(normals), lamp(normals)
    shading = shading * (1.0 + noise * torch.randn(len(shading), generator=generator(1)))
    samples = seen(normals, albedo, shading)
    before = error(samples.colors, albedo)
    assert before > 0.1
    assert error(corrected(samples), albedo) < (0.025 if noise == 0.0 else 0.04)


def test_what_low_harmonics_hold_is_recovered_in_its_own_form() -> None:
    normals = sphere()
    wanted = torch.tensor([0.15, 0.3, 0.2, 0.05, -0.04, 0.03, 0.02, -0.06])
    samples = seen(normals, patches(normals), torch.exp(harmonics(normals) @ wanted - 0.5))
    found = fit_lighting(samples, CONFIG, generator())
    torch.testing.assert_close(found.coefficients[:8], wanted, atol=0.03, rtol=0.0)


@pytest.mark.parametrize(("usual", "bound"), [(0.0, 0.01), (1.0, 0.025)])
def test_even_light_leaves_colors_as_they_are(usual: float, bound: float) -> None:
    normals = sphere()
    albedo = patches(normals)
    for level in (1.0, 0.6):
        samples = seen(normals, albedo, torch.full((len(normals),), level))
        assert error(corrected(samples, DelightConfig(usual=usual)), samples.colors) < bound


def test_a_change_of_grey_is_not_taken_for_light() -> None:
    normals = sphere()
    grey = torch.where(normals[:, 1:2] > 0.0, 0.8, 0.3).expand(-1, 3)
    samples = seen(normals, grey, torch.ones(len(normals)))
    changed = (corrected(samples) - grey).abs().mean(dim=1) / grey[:, 0]
    assert float(changed.median()) < 0.15


def test_a_lamp_beside_the_camera_is_found() -> None:
    normals = sphere()
    facing = torch.rand(len(normals), generator=generator(3))
    samples = seen(normals, patches(normals), torch.exp(0.4 * (facing - 1.0)), facing)
    found = fit_lighting(samples, CONFIG, generator())
    assert float(found.coefficients[8]) == pytest.approx(0.4, abs=0.08)
    # Light never comes from behind the surface.
    away = seen(normals, patches(normals), torch.exp(-0.4 * facing), facing)
    assert float(fit_lighting(away, CONFIG, generator()).coefficients[8]) == 0.0


def test_best_lit_is_one_and_nothing_gets_darker() -> None:
    normals = sphere()
    samples = seen(normals, patches(normals), lamp(normals))
    found = fit_lighting(samples, CONFIG, generator())
    shading = found.shading(normals, samples.facing, samples.occlusion)
    assert 0.98 < float(shading.max()) <= 1.0 + 1e-4
    assert bool((corrected(samples) >= samples.colors - 1e-6).all())


def test_the_correction_is_bounded_and_scaled() -> None:
    colors, shading = torch.full((3, 3), 0.1), torch.tensor([1e-6, 0.5, 3.0])
    out = remove_light(colors, shading, DelightConfig(floor=0.4))
    torch.testing.assert_close(out[:, 0], torch.tensor([0.25, 0.2, 0.1]))
    assert torch.equal(remove_light(colors, shading, DelightConfig(strength=0.0)), colors)
    assert float(remove_light(torch.ones(1, 3), torch.tensor([0.5]), CONFIG).max()) == 1.0


@pytest.mark.parametrize("count", [0, 20])
def test_too_few_samples_are_no_light(count: int) -> None:
    samples = seen(sphere(count), torch.ones(count, 3), torch.ones(count))
    found = fit_lighting(samples, CONFIG, generator())
    assert float(found.coefficients.abs().sum()) == 0.0
    assert torch.equal(corrected(samples), samples.colors)


def test_what_samples_do_not_tell_is_usual_light() -> None:
    top = torch.tensor([[0.0, 1.0, 0.0]]).expand(500, 3)
    samples = seen(top, torch.full((500, 3), 0.5), torch.ones(500))
    _, y, z, *_, facing, hollows = fit_lighting(samples, CONFIG, generator()).coefficients.tolist()
    assert y > z > 0
    assert facing > 0
    assert hollows > 0
    torch.testing.assert_close(corrected(samples), samples.colors, atol=0.05, rtol=0.0)
    none = fit_lighting(samples, DelightConfig(usual=0.0), generator())
    assert float(none.coefficients.abs().max()) < 1e-6


def test_samples_without_weight_do_not_count() -> None:
    normals = sphere(1000)
    samples = seen(normals, patches(normals), lamp(normals))
    nothing = Samples(**{**vars_of(samples), "weights": torch.zeros(1000)})
    assert float(fit_lighting(nothing, CONFIG, generator()).coefficients.abs().max()) == 0.0


def vars_of(samples: Samples) -> dict[str, Tensor]:
    return {name: getattr(samples, name) for name in Samples.__dataclass_fields__}


def test_the_fit_is_reproducible() -> None:
    normals = sphere(1000)
    samples = seen(normals, patches(normals), lamp(normals))
    first, again = (fit_lighting(samples, CONFIG, generator(5)) for _ in range(2))
    assert torch.equal(first.coefficients, again.coefficients)
    assert first.level == again.level


def test_no_light_shades_nothing() -> None:
    normals = sphere(10)
    assert torch.equal(Lighting.none().shading(normals, torch.ones(10), torch.ones(10)), torch.ones(10))


@pytest.fixture(scope="module")
def bowl() -> Mesh:
    """A thick half shell, open to +Y, radii 0.5 and 0.7."""
    axis = torch.linspace(-1.0, 1.0, 48)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    shell = ((points.norm(dim=-1) - 0.6).abs() - 0.1).maximum(points[..., 1])
    return meshing.extract_mesh(shell, inside="below")


def test_hollows_are_occluded_and_open_places_are_not(bowl: Mesh) -> None:
    points = torch.tensor([[0.0, -0.5, 0.0], [0.0, -0.7, 0.0], [0.0, -0.7, 0.0]])
    normals = torch.tensor([[0.0, 1.0, 0.0], [0.0, -1.0, 0.0], [0.0, 1.0, 0.0]])
    inside, outside, into_the_wall = occlusion(bowl, points, normals).tolist()
    assert outside < 0.05
    assert inside > outside + 0.01
    assert into_the_wall > 0.5


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"strength": 1.5}, "strength"),
        ({"num_pairs": 0}, "num_pairs"),
        ({"usual": -1.0}, "usual"),
        ({"chroma": 0.0}, "chroma"),
        ({"ridge": 0.0}, "ridge"),
        ({"floor": 0.0}, "floor"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        DelightConfig(**settings)  # pyright: ignore[reportArgumentType]
