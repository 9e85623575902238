"""Captions to scenes, and scenes to meshes and shards."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from experiments.world import scene_from_caption
from experiments.world.config import DatasetConfig
from experiments.world.dataset import load_shards, make_dataset, make_group
from gen3d.cameras import ring
from gen3d.meshing import is_watertight


@pytest.mark.parametrize(
    ("caption", "kind"),
    [
        ("a red mushroom", "thing"),
        ("a blue cone on a yellow cube", "pair"),
        ("a portrait of a bald man", "head"),
    ],
)
def test_scene_is_solid_inside_the_unit_sphere(caption: str, kind: str) -> None:
    scene = scene_from_caption(caption)
    assert scene.kind == kind
    points = torch.nn.functional.normalize(
        torch.randn(2000, 3, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    assert float(scene.sdf(points * 1.02).min()) > 0
    mesh = scene.mesh(48)
    assert len(mesh.faces) > 500
    assert float(scene.sdf(mesh.vertices).abs().max()) < 0.05
    # Faces wind so that their normals point outwards.
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    volume = (a * torch.linalg.cross(b, c)).sum() / 6
    assert float(volume) > 0.01


def test_seed_varies_proportions_and_none_is_canonical() -> None:
    first, again = scene_from_caption("a green duck", seed=3), scene_from_caption("a green duck", seed=3)
    canonical = scene_from_caption("a green duck")
    p = torch.rand(500, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.equal(first.sdf(p), again.sdf(p))
    assert not torch.allclose(first.sdf(p), canonical.sdf(p), atol=1e-3)


def test_unknown_word_names_itself() -> None:
    with pytest.raises(ValueError, match="mushrom"):
        scene_from_caption("a red mushrom")


def test_background_clause_is_seen() -> None:
    image = scene_from_caption("a red ball, on a white background").render(ring(1), 64).images
    torch.testing.assert_close(image[0, :, 0, 0], torch.ones(3), atol=0.06, rtol=0)


SMALL = DatasetConfig(num_scenes=3, scenes_per_shard=2, size=32, num_views=2)


def test_groups_depend_on_settings_and_index_alone() -> None:
    assert torch.equal(make_group(SMALL, 1).images, make_group(SMALL, 1).images)
    assert make_group(SMALL, 0).caption != make_group(SMALL, 1).caption


def test_shards_are_made_once_and_refuse_other_settings(tmp_path: Path) -> None:
    paths = list(make_dataset(tmp_path, SMALL, workers=1))
    stamps = [p.stat().st_mtime_ns for p in paths]
    assert [p.stat().st_mtime_ns for p in make_dataset(tmp_path, SMALL, workers=1)] == stamps
    shards = load_shards(paths)
    assert len(shards) == 3
    assert shards.images.shape == (3, 2, 3, 32, 32)
    assert torch.equal(shards.images[2], make_group(SMALL, 2).images)
    with pytest.raises(ValueError, match="other settings"):
        list(make_dataset(tmp_path, DatasetConfig(num_scenes=4, size=32), workers=1))


def test_a_mesh_is_closed_where_samples_fall_onto_the_surface() -> None:
    scene = scene_from_caption("an orange duck")
    samples = torch.linspace(-1.05, 1.05, 128)
    grid = torch.stack(torch.meshgrid(samples, samples, samples, indexing="ij"), dim=-1).view(-1, 3)
    assert float(scene.sdf(grid).abs().min()) < 1e-6
    assert is_watertight(scene.mesh(128))
