"""The renderer against closed forms: what a sphere covers, how far it is, and how its light behaves."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from experiments.world.guests import random_light
from experiments.world.render import Light, linear_to_srgb, render, srgb_to_linear
from experiments.world.scene import scene_from_caption
from experiments.world.sdf import box, compile_parts, sphere, torus
from gen3d.cameras import Cameras, orbit, ring
from gen3d.delight import _SPREAD, _USUAL, harmonics

GREY = torch.tensor([[0.8, 0.8, 0.8]])


def test_a_sphere_covers_the_disc_it_should() -> None:
    field, cameras = compile_parts([[sphere(0.5)]]), orbit(30.0, 20.0)
    r = render(field, cameras, 64, GREY, Light())
    distance = float(cameras.positions.norm())
    # Half-angle of the tangent cone against half the field of view: the disc's radius in half-pictures.
    radius = math.tan(math.asin(0.5 / distance)) / math.tan(math.radians(20))
    assert float(r.mask.sum()) == pytest.approx(math.pi * (radius * 32) ** 2, rel=0.01)
    assert float(r.depth[0, 0, 0, 32, 32]) == pytest.approx(distance - 0.5, abs=0.01)
    edge = (r.mask > 0.01) & (r.mask < 0.99)
    assert 50 < int(edge.sum()) < 400  # soft edges, and only edges


def test_normals_face_the_camera_and_are_unit() -> None:
    cameras = ring(4)
    r = render(compile_parts([[torus(0.5, 0.2)]]), cameras, 64, GREY, Light())
    normals = r.normals[0].permute(0, 2, 3, 1)
    solid = r.mask[0, :, 0] > 0.99
    assert torch.allclose(normals[solid].norm(dim=-1), torch.ones(int(solid.sum())), atol=1e-3)
    _, directions = cameras.rays(64, 64)
    assert (normals * directions).sum(-1)[solid].quantile(0.99) < 0.1


def test_scenes_in_a_batch_look_as_alone() -> None:
    scenes = [
        [sphere(0.6).colored((1, 0, 0))],
        [box(0.4, 0.4, 0.4, 0.05), torus(0.6, 0.1).colored((0, 0, 1))],
    ]
    cameras = ring(2, elevation_deg=30)
    both = Cameras(c2w=cameras.c2w.repeat(2, 1, 1), fovy_deg=cameras.fovy_deg.repeat(2))
    together = render(compile_parts(scenes), both, 64, GREY.repeat(2, 1), Light())
    for i, parts in enumerate(scenes):
        alone = render(compile_parts([parts]), cameras, 64, GREY, Light())
        error = (together.images[i] - alone.images[0]).square().mean()
        assert -10 * float(error.log10()) > 40


def test_finer_rendering_averages_to_the_coarse_one() -> None:
    """One soft-edged ray a pixel against sixteen: silhouettes agree closely, paint edges are not antialiased."""
    scene = scene_from_caption("a red mushroom")
    coarse, fine = scene.render(ring(2), 64), scene.render(ring(2), 256)
    mean = torch.nn.functional.avg_pool2d(fine.images, 4)
    error = (coarse.images - mean).square().mean()
    assert -10 * float(error.log10()) > 25
    mask = torch.nn.functional.avg_pool2d(fine.mask, 4)
    assert float((coarse.mask - mask).abs().mean()) < 0.006
    assert abs(float((coarse.mask - mask).mean())) < 0.001


def test_albedo_is_free_of_light_and_background_fills_the_rest() -> None:
    cameras = orbit(0.0, 0.0)
    field = compile_parts([[sphere(0.5).colored((0.9, 0.2, 0.1))]])
    r = render(field, cameras, 64, torch.tensor([[0.1, 0.2, 0.3]]), Light())
    torch.testing.assert_close(r.albedo[0, 0, :, 32, 32], torch.tensor([0.9, 0.2, 0.1]), atol=1e-4, rtol=0)
    torch.testing.assert_close(r.images[0, 0, :, 0, 0], torch.tensor([0.1, 0.2, 0.3]))
    assert float(r.images.min()) >= 0
    assert float(r.images.max()) <= 1


def test_srgb_round_trip() -> None:
    x = torch.linspace(0, 1, 101)
    torch.testing.assert_close(linear_to_srgb(srgb_to_linear(x)), x, atol=1e-5, rtol=0)


def test_bad_sizes() -> None:
    field = compile_parts([[sphere(0.5)]])
    with pytest.raises(ValueError, match="multiple of 8"):
        render(field, ring(1), 60, GREY, Light())
    with pytest.raises(ValueError, match="multiple of the 2 scenes"):
        render(compile_parts([[sphere(0.5)], [sphere(0.4)]]), ring(3), 64, GREY.repeat(2, 1), Light())


def test_scenes_are_lit_as_textures_expect_pictures_to_be() -> None:
    """From above, from in front and with the camera: what `gen3d.delight` pulls light to where views do not tell."""
    rng = np.random.default_rng(0)
    field, cameras = compile_parts([[sphere(0.6).colored((0.5, 0.5, 0.5))]]), ring(4, elevation_deg=15)
    _, directions = cameras.rays(32, 32)
    fitted = []
    for _ in range(12):
        r = render(field, cameras, 32, GREY, replace(random_light(rng), specular=0.0))
        solid = r.mask[0, :, 0] > 0.99
        normals = r.normals[0].permute(0, 2, 3, 1)[solid]
        facing = -(normals * directions[solid]).sum(-1)
        shading = srgb_to_linear(r.images[0]).mean(1)[solid].log()
        features = torch.cat([harmonics(normals), facing[:, None], torch.ones(len(normals), 1)], dim=-1)
        fitted.append(torch.linalg.lstsq(features, shading[:, None]).solution[:, 0])
    mean = torch.stack(fitted).mean(0)
    torch.testing.assert_close(mean[[0, 1, 2, 8]], torch.tensor([0.05, 0.6, 0.2, 0.4]), atol=0.08, rtol=0.0)
    # An open sphere has no hollows, so of what is expected the last coefficient, theirs, stays out.
    assert bool(((mean[:9] - torch.tensor(_USUAL[:9])).abs() < torch.tensor(_SPREAD[:9])).all())
