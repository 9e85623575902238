"""The PLY of 3D Gaussian splatting: its layout, its axes, round trips, other programs' files, damaged files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from gen3d.cameras import Cameras, orbit
from gen3d.representations.gaussians import GaussiansConfig
from gen3d.representations.splat_cloud import LEARNT, SplatCloud
from gen3d.splat_ply import encode_splats, load_splats


def cloud_of(degree: int, count: int = 60) -> SplatCloud:
    generator = torch.Generator().manual_seed(degree)
    tensors = GaussiansConfig(num_points=count, degree=degree).begin().tensors()
    for name in LEARNT:
        tensors[name] = tensors[name] + 0.3 * torch.randn(tensors[name].shape, generator=generator)
    return GaussiansConfig(num_points=count, degree=degree).load(tensors)


def written(folder: Path, cloud: SplatCloud) -> Path:
    path = folder / "gaussians.ply"
    path.write_bytes(cloud.files()["gaussians.ply"])
    return path


def with_tensors(cloud: SplatCloud, tensors: dict[str, Tensor]) -> SplatCloud:
    return cloud.settings.load(cloud.tensors() | tensors)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_splats_come_back(tmp_path: Path, degree: int) -> None:
    cloud = cloud_of(degree)
    again = load_splats(written(tmp_path, cloud))
    assert set(again) == set(LEARNT)
    for name in ("means", "features", "opacities", "scales"):
        assert torch.equal(again[name], cloud.tensors()[name]), name
    views = orbit([10.0, 200.0], [20.0, -15.0])
    before, after = (
        each.render(views, 32, torch.zeros(2, 3)).images for each in (cloud, with_tensors(cloud, again))
    )
    assert float(before.max()) > 0.2
    torch.testing.assert_close(after, before, atol=1e-5, rtol=0)
    # Once there the quaternions are of unit length, and the bytes are the same.
    assert encode_splats(with_tensors(cloud, again).tensors()) == encode_splats(again)


def test_the_layout_is_that_of_other_viewers(tmp_path: Path) -> None:
    """As read by trimesh's own parser, by the names and meanings of the reference implementation."""
    cloud = cloud_of(1)
    found = trimesh.load(written(tmp_path, cloud)).metadata["_ply_raw"]["vertex"]["data"]
    assert list(found.dtype.names) == [
        "x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", *(f"f_rest_{index}" for index in range(9)),
        "opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3",
    ]  # fmt: skip
    own = cloud.tensors()
    assert np.array_equal(found["y"].ravel(), -own["means"][:, 1].numpy())
    assert np.array_equal(found["opacity"].ravel(), own["opacities"].numpy())
    assert np.array_equal(found["scale_2"].ravel(), own["scales"][:, 2].numpy())
    # f_rest: three coefficients of red, then of green; the second goes with z, which changes its sign.
    assert np.array_equal(found["f_rest_2"].ravel(), own["features"][:, 3, 0].numpy())
    assert np.array_equal(found["f_rest_4"].ravel(), -own["features"][:, 2, 1].numpy())


@pytest.mark.parametrize("degree", [0, 3])
def test_as_others_take_the_file_the_object_is_upright_and_faces_along_z(tmp_path: Path, degree: int) -> None:
    """What is written, drawn without turning it back, by a camera that has turned with it, is the same picture."""
    cloud = cloud_of(degree)
    turn = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    path = written(tmp_path, cloud)
    data = path.read_bytes()
    table = np.frombuffer(data[data.index(b"end_header\n") + 11 :], "<f4").reshape(len(cloud), -1)
    rest = 3 * ((degree + 1) ** 2 - 1)
    features = torch.from_numpy(table[:, 6 : 9 + rest].copy())
    others = features[:, 3:].view(len(cloud), 3, -1).transpose(1, 2)
    as_written = {
        "means": torch.from_numpy(table[:, :3].copy()),
        "features": torch.cat([features[:, None, :3], others], dim=1),
        "rotations": torch.from_numpy(table[:, -4:].copy()),
    }
    view = orbit([25.0], [15.0])
    turned = view.c2w.clone()
    turned[:, :3] = turn @ turned[:, :3]
    theirs = with_tensors(cloud, as_written).render(
        Cameras(c2w=turned, fovy_deg=view.fovy_deg), 32, torch.zeros(1, 3)
    )
    torch.testing.assert_close(
        theirs.images, cloud.render(view, 32, torch.zeros(1, 3)).images, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[: len(data) // 2], "is cut short: 60 splats are announced"),
        (lambda data: data.replace(b"property float opacity", b"property float opaque"), "it lacks opacity"),
        (lambda data: data.replace(b"binary_little_endian", b"ascii"), "no binary little endian PLY"),
        (lambda data: data.replace(b"vertex 60", b"vertex 999999999"), "999,999,999 splats"),
        (lambda data: data.replace(b"vertex 60", b"face 60"), "holds no 3D Gaussians"),
        (lambda data: data.replace(b"property float nx", b"property uchar nx"), "holds no 3D Gaussians"),
        (lambda data: data[:-4] + np.float32(np.nan).tobytes(), "NaN or infinity"),
        (lambda data: b"", "no binary little endian PLY"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, change, message: str) -> None:
    path = written(tmp_path, cloud_of(0))
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=message):
        load_splats(path)
