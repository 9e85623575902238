"""The primitives against closed forms and brute force, and the rules by which parts join."""

from __future__ import annotations

import math

import pytest
import torch

from experiments.world.sdf import (
    Part,
    box,
    capsule,
    compile_parts,
    cone,
    cylinder,
    ellipsoid,
    fit_unit_sphere,
    pyramid,
    sphere,
    torus,
    tube,
)

PRIMITIVES = {
    "box": box(0.4, 0.3, 0.5, 0.05),
    "cylinder": cylinder(0.4, 0.5, 0.05),
    "capsule": capsule(0.2, 0.4),
    "cone": cone(0.5, 0.2, 0.4),
    "pointed_cone": cone(0.5, 0.0, 0.4, 0.03),
    "torus": torus(0.5, 0.15),
    "tube": tube(0.5, 0.3, 0.1),
    "pyramid": pyramid(0.5, 0.4),
    "sphere": sphere(0.6),
}


def _points(n: int = 400, seed: int = 0) -> torch.Tensor:
    return torch.rand(1, n, 3, generator=torch.Generator().manual_seed(seed)) * 2.4 - 1.2


def test_closed_forms() -> None:
    p = _points()
    x, y, z = p[0].unbind(-1)
    expected = {
        "sphere": p[0].norm(dim=-1) - 0.6,
        "capsule": torch.stack([x, (y.abs() - 0.4).clamp(min=0), z], -1).norm(dim=-1) - 0.2,
        "torus": torch.stack([torch.stack([x, z], -1).norm(dim=-1) - 0.5, y], -1).norm(dim=-1) - 0.15,
    }
    for name, distance in expected.items():
        torch.testing.assert_close(compile_parts([[PRIMITIVES[name]]]).sdf(p)[0], distance, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", PRIMITIVES)
def test_distances_are_distances(name: str) -> None:
    """Outside, the ball of that radius holds no surface and a slightly larger one does: exact, not just a bound."""
    field = compile_parts([[PRIMITIVES[name]]])
    outside = _points()
    outside = outside[:, field.sdf(outside)[0] > 0.02]
    distance = field.sdf(outside)[0]
    foot = outside - field.normals(outside) * distance[None, :, None]
    assert field.sdf(foot).abs().median() < 2e-3
    directions = torch.nn.functional.normalize(_points(64, seed=1), dim=-1)[0]
    for direction in directions:
        assert field.sdf(outside + 0.98 * distance[None, :, None] * direction).min() > 0


def test_ellipsoid_is_exact_on_its_surface_and_negative_inside() -> None:
    field = compile_parts([[ellipsoid(0.5, 0.3, 0.4)]])
    on = torch.nn.functional.normalize(_points(), dim=-1) * torch.tensor([0.5, 0.3, 0.4])
    assert field.sdf(on).abs().max() < 1e-3
    assert torch.isclose(field.sdf(torch.zeros(1, 1, 3)), torch.tensor(-0.3), atol=1e-3).all()


def test_rotation_and_translation_follow_the_order_of_calls() -> None:
    part = box(0.6, 0.1, 0.1).rotate_z(90).at(0.2, 0.0, 0.0)  # now tall along y, centred at x = 0.2
    field = compile_parts([[part]])
    inside, outside = torch.tensor([[[0.2, 0.5, 0.0]]]), torch.tensor([[[0.7, 0.0, 0.0]]])
    assert float(field.sdf(inside)) < 0 < float(field.sdf(outside))


def test_carving_removes_and_paints_the_cut() -> None:
    red, blue = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)
    field = compile_parts(
        [[box(0.5, 0.5, 0.5).colored(red), sphere(0.3).at(0, 0.5, 0).carve().colored(blue)]]
    )
    distance, color = field.sdf_and_albedo(
        torch.tensor([[[0.0, 0.4, 0.0], [0.0, -0.5, 0.0], [0.0, 0.2, 0.0]]])
    )
    assert distance[0, 0] > 0
    assert abs(float(distance[0, 1])) < 1e-5
    torch.testing.assert_close(color[0, 1], torch.tensor(red))
    torch.testing.assert_close(color[0, 2], torch.tensor(blue))


def test_smooth_union_adds_matter_only_near_the_joint() -> None:
    parts = [sphere(0.3).at(-0.3, 0, 0), sphere(0.3).at(0.3, 0, 0)]
    plain, smooth = compile_parts([parts]), compile_parts([[parts[0], parts[1].smooth(0.1)]])
    p = _points()
    difference = plain.sdf(p) - smooth.sdf(p)
    assert difference.min() >= -1e-6
    assert difference.max() <= 0.1 / 4 + 1e-6
    joint = torch.zeros(1, 1, 3)
    assert float(plain.sdf(joint) - smooth.sdf(joint)) == pytest.approx(0.025, abs=1e-5)


def test_scenes_of_different_lengths_evaluate_as_alone() -> None:
    scenes: list[list[Part]] = [[part] for part in PRIMITIVES.values()]
    scenes.append([ellipsoid(0.3, 0.2, 0.5), box(0.1, 0.6, 0.1).smooth(0.1), sphere(0.2).carve(0.02)])
    p = _points()
    together = compile_parts(scenes).sdf(p.expand(len(scenes), -1, -1))
    for i, parts in enumerate(scenes):
        torch.testing.assert_close(together[i], compile_parts([parts]).sdf(p)[0], atol=2e-5, rtol=0)


def test_fit_fills_the_sphere_and_keeps_the_shape() -> None:
    parts = fit_unit_sphere([box(3.0, 1.0, 1.0).at(5, 5, 5)], margin=0.9)
    field = compile_parts([parts])
    corner = torch.tensor([[[3.0, 1.0, 1.0]]]) / math.sqrt(11) * 0.9
    assert field.sdf(corner).abs().max() < 0.02
    assert field.sdf(torch.zeros(1, 1, 3)) < 0


def test_no_parts_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one part"):
        compile_parts([[]])
