"""The voxel field and its renderer, against grid_sample, finite differences and closed forms."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from gen3d.cameras import orbit
from gen3d.render.lamp import Lamp
from gen3d.render.rays import near_far, picture, render_rays
from gen3d.representations import trilinear
from gen3d.representations.base import load_field
from gen3d.representations.config import VolumeConfig
from gen3d.representations.hull import look_up
from gen3d.representations.volume import Volume
from gen3d.state import State
from gen3d.views import Views


def noise_volume(resolution: int = 9, scale: float = 4.0, seed: int = 0) -> Volume:
    generator = torch.Generator().manual_seed(seed)
    grid = torch.randn(resolution, resolution, resolution, 4, generator=generator)
    return Volume(grid, VolumeConfig(density_scale=scale))


def rays(count: int = 40, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    origins = F.normalize(torch.randn(count, 3, generator=generator), dim=-1) * 3.0
    targets = torch.rand(count, 3, generator=generator) - 0.5
    return origins, F.normalize(targets - origins, dim=-1)


def test_sample_is_trilinear_forward_and_backward() -> None:
    volume = noise_volume()
    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(2)) * 2.2 - 1.1
    table = volume.grid.clone().requires_grad_(True)
    channels = table.permute(3, 2, 1, 0)[None]
    expected = F.grid_sample(channels, points.view(1, 1, 1, -1, 3), align_corners=True, padding_mode="border")
    expected = expected[0, :, 0, 0].T
    volume.grid.requires_grad_(True)
    sampled = volume.sample(points)
    torch.testing.assert_close(sampled, expected, rtol=1e-5, atol=1e-5)
    pull = torch.randn(50, 4, generator=torch.Generator().manual_seed(3))
    (sampled * pull).sum().backward()
    (expected * pull).sum().backward()
    torch.testing.assert_close(volume.grid.grad, table.grad, rtol=1e-5, atol=1e-5)


def test_skipping_changes_nothing_visible() -> None:
    """Against the plain sum over every sample."""
    volume = VolumeConfig(resolutions=(17,), density_scale=60.0, blob_strength=3.0).begin()
    volume.grid[..., 1:] = noise_volume(17).grid[..., 1:]
    volume = Volume(volume.grid, volume.settings)
    origins, directions = rays(60)
    background = torch.tensor([0.2, 0.4, 0.9])
    rendered = render_rays(volume, origins, directions, background, num_samples=64)
    near, far = near_far(origins, directions, *volume.bounds())
    step = (far - near) / 64
    t = near[:, None] + step[:, None] * (torch.arange(64) + 0.5)
    raw = volume.sample((origins[:, None] + directions[:, None] * t[..., None]).view(-1, 3)).view(60, 64, 4)
    thickness = volume.density_of(raw[..., 0]) * step[:, None]
    weights = torch.exp(thickness - thickness.cumsum(1)) * (1 - torch.exp(-thickness))
    rgb = (weights[..., None] * torch.sigmoid(raw[..., 1:])).sum(1) + (1 - weights.sum(1))[
        :, None
    ] * background
    assert len(rendered.kept) < 0.7 * 60 * 64
    assert (rendered.rgb - rgb).abs().max() < 5e-3
    assert (rendered.opacity - weights.sum(1)).abs().max() < 5e-3


def test_gradient_matches_finite_differences() -> None:
    volume = Volume(noise_volume(5).grid.double(), VolumeConfig(density_scale=3.0))
    origins, directions = (part.double() for part in rays(12))
    background = torch.tensor([0.1, 0.5, 0.7], dtype=torch.float64)
    pull = torch.randn(12, 3, generator=torch.Generator().manual_seed(5)).double()

    def value() -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        rendered = render_rays(volume, origins, directions, background, num_samples=24, generator=generator)
        return (rendered.rgb * pull).sum() + rendered.depth.sum()

    volume.grid.requires_grad_(True)
    value().backward()
    gradient = volume.grid.grad
    assert gradient is not None
    volume.grid.requires_grad_(False)
    for index in [(2, 2, 2, 0), (1, 2, 3, 0), (2, 1, 2, 1), (3, 2, 2, 3)]:
        original = float(volume.grid[index])
        results = []
        for sign in (1, -1):
            volume.grid[index] = original + sign * 1e-5
            results.append(float(value()))
        volume.grid[index] = original
        assert math.isclose(
            (results[0] - results[1]) / 2e-5, float(gradient[index]), rel_tol=1e-4, abs_tol=1e-7
        )


def test_uniform_fog_has_the_closed_form_opacity() -> None:
    grid = torch.zeros(4, 4, 4, 4)
    volume = Volume(grid, VolumeConfig(density_scale=1.0))
    origins, directions = torch.tensor([[0.0, 0.0, 3.0]]), torch.tensor([[0.0, 0.0, -1.0]])
    rendered = render_rays(volume, origins, directions, torch.ones(3), num_samples=64)
    assert float(rendered.opacity) == pytest.approx(1 - math.exp(-2 * math.log(2.0)), abs=1e-4)
    assert float(rendered.rgb[0, 0]) == pytest.approx(1 - 0.5 * float(rendered.opacity), abs=1e-4)


def test_a_miss_shows_the_background_alone() -> None:
    volume = VolumeConfig(resolutions=(12,)).begin()
    origins, directions = torch.tensor([[0.0, 5.0, 3.0]]), torch.tensor([[0.0, 0.0, -1.0]])
    rendered = render_rays(volume, origins, directions, torch.tensor([0.3, 0.6, 0.9]), num_samples=48)
    assert torch.equal(rendered.rgb, torch.tensor([[0.3, 0.6, 0.9]]))
    assert float(rendered.opacity) == 0.0
    empty = Volume(torch.full((8, 8, 8, 4), -9.0))
    shown = picture(empty, orbit(0, 0), 8, torch.ones(1, 3), num_samples=8)
    assert float(shown.images.min()) == 1.0
    assert float(shown.opacity.max()) == 0.0


def test_same_generator_same_samples_and_centres_without() -> None:
    volume, (origins, directions) = noise_volume(), rays(8)
    shots = [
        render_rays(
            volume,
            origins,
            directions,
            torch.ones(3),
            num_samples=48,
            generator=torch.Generator().manual_seed(s),
        ).rgb
        for s in (1, 1, 2)
    ]
    assert torch.equal(shots[0], shots[1])
    assert not torch.equal(shots[0], shots[2])


def test_upsample_keeps_the_field_and_refuses_to_go_down() -> None:
    volume = noise_volume(8)
    finer = volume.upsample(15)
    points = torch.rand(30, 3, generator=torch.Generator().manual_seed(2)) * 2 - 1
    torch.testing.assert_close(finer.sample(points), volume.sample(points), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="coarse to fine"):
        finer.upsample(8)


def test_a_state_keeps_stale_cells() -> None:
    volume, state = noise_volume(6), State()
    volume.grid.add_(1.0)
    volume.save(state)
    restored = load_field(volume.settings, State(state.tensors()))
    assert isinstance(restored, Volume)
    assert torch.equal(restored.grid, volume.grid)
    assert torch.equal(restored.cell_density, volume.cell_density)
    with pytest.raises(ValueError, match="cell_density"):
        volume.settings.load({"grid": volume.grid})
    with pytest.raises(ValueError, match="holds no representation"):
        load_field(volume.settings, State())


def test_levels_follow_the_resolutions_and_the_last_holds_on() -> None:
    volume = VolumeConfig(resolutions=(8, 12, 12)).begin()
    assert [volume.level(index).resolution for index in range(5)] == [8, 12, 12, 12, 12]
    assert volume.level(0) is volume


def test_pictures_are_those_of_training_and_take_a_light() -> None:
    volume = VolumeConfig(resolutions=(24,), density_scale=100.0, num_samples=96).begin()
    cameras, background = orbit([0.0, 90.0], 10.0), torch.tensor([[1.0, 1.0, 1.0], [0.2, 0.4, 0.6]])
    whole = volume.render(cameras, 24, background)
    trained = volume.render(cameras, 24, background, generator=torch.Generator().manual_seed(0))
    assert float((whole.images - trained.images).abs().mean()) < 0.02
    assert trained.rays is not None
    assert torch.equal(trained.opacity.view(-1), trained.rays.opacity)
    torch.testing.assert_close(whole.images[:, :, 0, 0], background)
    # A lamp at the camera: bright in the middle of the ball, dark at its rim; ambient alone everywhere with 1.
    lamp = Lamp(position=cameras[:1].positions[0], ambient=0.0, textureless=True)
    shaded = volume.render(
        cameras[:1], 24, background[1:], generator=torch.Generator().manual_seed(0), shade=lamp
    )
    middle = shaded.images[0, 0, 12]
    rim = int((shaded.opacity[0, 0, 12] > 0.9).nonzero()[0])
    assert float(middle[12]) > 0.9
    assert float(middle[rim]) < 0.6
    flat = Lamp(position=cameras[:1].positions[0], ambient=1.0)
    plain = volume.render(
        cameras[:1], 24, background[:1], generator=torch.Generator().manual_seed(0), shade=flat
    )
    torch.testing.assert_close(plain.images[0], trained.images[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("trained", [False, True])
def test_depth_and_normals_of_a_ball(trained: bool) -> None:
    """A ball of radius 0.5: distance along the ray and outward normals, both times the opacity."""
    volume = VolumeConfig(resolutions=(40,), density_scale=300.0, blob_strength=20.0, num_samples=160).begin()
    cameras = orbit([30.0, 200.0], [10.0, -20.0])
    generator = torch.Generator().manual_seed(0) if trained else None
    volume.grid.requires_grad_(trained)
    seen = volume.render(cameras, 32, torch.ones(2, 3), generator=generator, normals=True)
    assert seen.depth is not None
    assert seen.normals is not None
    origins, directions = cameras.rays(32, 32)
    along = -(origins * directions).sum(-1)
    within = 0.25 - (origins.square().sum(-1) - along.square())
    distance = along - within.clamp_min(0.0).sqrt()
    inside = within > 0.05
    assert ((seen.depth / seen.opacity.clamp_min(1e-6))[:, 0] - distance).abs()[inside].max() < 0.05
    expected = (origins + directions * distance[..., None]) / 0.5
    cosines = (seen.normals.permute(0, 2, 3, 1) * expected).sum(-1)
    assert cosines[inside].min() > 0.95
    assert (seen.normals.norm(dim=1, keepdim=True) - seen.opacity).max() < 1e-5
    missed = within < -0.1
    assert torch.equal(seen.depth[:, 0][missed], torch.zeros(int(missed.sum())))
    assert seen.normals.abs().sum(1)[missed].max() == 0.0
    assert volume.render(cameras, 4, torch.ones(2, 3)).normals is None
    if trained:
        for part in (seen.depth, seen.normals):
            (gradient,) = torch.autograd.grad(part.sum(), volume.grid, retain_graph=True)
            assert gradient[..., 0].abs().sum() > 0.0
            assert gradient[..., 1:].abs().sum() == 0.0


def test_total_variation_of_a_ramp_is_exact_on_any_slab() -> None:
    axis = torch.linspace(0, 1, 12)
    grid = torch.zeros(12, 12, 12, 4)
    grid[..., 0] = axis[None, :, None]
    volume = Volume(grid)
    generator = torch.Generator().manual_seed(0)
    parts = [float(volume.total_variation(generator, 0.25)[0]) for _ in range(4)]
    assert parts == pytest.approx([float(volume.total_variation(generator)[0])] * 4, rel=1e-5)


def test_density_level_and_normals() -> None:
    volume = VolumeConfig(resolutions=(24,)).begin()
    for density in (0.01, 7.5, 80.0):
        raw = torch.tensor(volume.raw_of(density))
        assert float(volume.density_of(raw)) == pytest.approx(density, rel=1e-3)
    points = F.normalize(torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), dim=-1) * 0.5
    assert (volume.normals_at(points) * points / 0.5).sum(-1).min() > 0.98
    assert volume.density_grid(10).shape == (10, 10, 10)


def test_hull_of_a_ball() -> None:
    cameras = orbit([0, 90, 180, 270, 45, 225], [10, 10, 10, 10, 50, 50])
    origins, directions = cameras.rays(48, 48)
    closest = torch.linalg.cross(origins, directions).norm(dim=-1)
    masks = (closest < 0.6).float()[:, None]
    images = masks * torch.tensor([0.9, 0.2, 0.1])[:, None, None] + 0.5 * (1 - masks)
    volume = VolumeConfig(resolutions=(32,)).begin()
    backgrounds = torch.full((6, 3), 0.5)
    volume.carve(Views(images=images, masks=masks, backgrounds=backgrounds, cameras=cameras))
    axis = torch.linspace(-1, 1, 32)
    radius = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).norm(dim=0)
    solid = volume.grid[..., 0] > 0
    assert solid[radius < 0.55].all()
    assert ((solid & (radius < 0.6)).sum() / (solid | (radius < 0.6)).sum()) > 0.85
    _, color = volume.density_and_color(torch.zeros(1, 3))
    assert (color - torch.tensor([0.9, 0.2, 0.1])).abs().max() < 0.03


def test_project_inverts_rays() -> None:
    cameras = orbit([20, 140], [10, -5])
    origins, directions = cameras.rays(8, 8)
    points = (origins + 2.5 * directions)[1, 2, 5]
    positions, depth = cameras.project(points[None])
    assert positions[1, 0].tolist() == pytest.approx([2 * 5.5 / 8 - 1, 2 * 2.5 / 8 - 1], abs=1e-5)
    assert float(depth[1, 0]) > 0
    image = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        look_up(image, cameras, points[None])[1, :, 0], image[1, :, 2, 5], atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"resolutions": (2,)}, "resolutions"),
        ({"resolutions": (64, 32)}, "coarse to fine"),
        ({"density_scale": 0.0}, "density_scale"),
    ],
)
def test_bad_configs_name_the_setting(settings: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        VolumeConfig(**settings)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\[R, R, R, 4\]"):
        Volume(torch.zeros(3, 4, 4, 4))


def test_kernels_are_plain_torch_to_the_last_bit() -> None:
    """So that a seed gives what it gave before there were kernels, and with any number of threads."""
    generator = torch.Generator().manual_seed(5)
    for channels in (4, 5):
        n = 11
        table = torch.randn(n**3, channels, generator=generator).requires_grad_(True)
        points = torch.rand(5000, 3, generator=generator) * 2.4 - 1.2
        points[:3] = torch.tensor([[-1.0, 0.0, 1.0], [1.0, 1.0, 1.0], [0.2, 0.4, -0.6]])
        pull = torch.randn(5000, channels, generator=generator) * torch.logspace(-6, 3, 5000)[:, None]
        sampled = trilinear.sample(table, points, n)
        sampled.backward(pull)
        corners, weights = trilinear.corners_reference(points, n)
        expected = F.embedding_bag(corners, table, mode="sum", per_sample_weights=weights)
        scattered = trilinear.scatter_reference(torch.zeros(n**3, channels), corners, weights, pull)
        assert torch.equal(sampled, expected)
        assert torch.equal(table.grad, scattered)


def test_other_types_than_float32_are_sampled_too() -> None:
    volume = noise_volume()
    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(2)) * 2.2 - 1.1
    table = volume.grid.view(-1, 4).double().requires_grad_(True)
    sampled = trilinear.sample(table, points.double(), 9)
    sampled.sum().backward()
    assert table.grad is not None
    assert table.grad.sum() == pytest.approx(4 * 50)
    torch.testing.assert_close(sampled.float(), volume.sample(points), rtol=1e-5, atol=1e-5)
