"""Every format written, checked and read again."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from gen3d import export, meshing, metrics, texture
from gen3d.asset import Material, Mesh
from gen3d.cameras import orbit
from gen3d.color import linear_to_srgb, srgb_to_linear
from gen3d.glb import glb_bytes, read_glb
from gen3d.mesh_files import load_mesh_file
from gen3d.render.shading import render_mesh


@pytest.fixture(scope="module")
def plain() -> Mesh:
    axis = torch.linspace(-1.0, 1.0, 32)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    box = (points.abs() - torch.tensor([0.5, 0.6, 0.4])).clamp_min(0.0).norm(dim=-1) - 0.15
    return meshing.with_normals(meshing.decimate(meshing.extract_mesh(box, inside="below"), 1200))


@pytest.fixture(scope="module")
def textured(plain: Mesh) -> Mesh:
    return texture.bake(texture.unwrap(plain, size=128), lambda p: 0.5 + 0.5 * torch.sin(4.0 * p), size=128)


@pytest.fixture(scope="module")
def colored(plain: Mesh) -> Mesh:
    return plain.replace(vertex_colors=(plain.vertices * 0.5 + 0.5).clamp(0.0, 1.0))


@pytest.fixture(params=["plain", "colored", "textured"])
def mesh(request: pytest.FixtureRequest) -> Mesh:
    return request.getfixturevalue(request.param)


def test_glb_structure(mesh: Mesh) -> None:
    data = glb_bytes(mesh, extras={"prompt": "a red box", "seed": 3})
    document, body = read_glb(data)
    assert document["asset"] == {
        "version": "2.0", "generator": "Galatea", "extras": {"prompt": "a red box", "seed": 3}
    }  # fmt: skip
    assert len(data) % 4 == 0
    assert document["buffers"] == [{"byteLength": len(body)}]
    used = {accessor["bufferView"] for accessor in document["accessors"]}
    used |= {image["bufferView"] for image in document.get("images", [])}
    assert used == set(range(len(document["bufferViews"])))
    end = 0
    for view in document["bufferViews"]:
        assert view["byteOffset"] % 4 == 0
        assert view["byteOffset"] >= end
        end = view["byteOffset"] + view["byteLength"]
    assert end <= len(body)
    primitive = document["meshes"][0]["primitives"][0]
    counts = {document["accessors"][index]["count"] for index in primitive["attributes"].values()}
    assert counts == {mesh.num_vertices}
    position = document["accessors"][primitive["attributes"]["POSITION"]]
    np.testing.assert_array_equal(np.float32(position["min"]), mesh.vertices.min(0).values.numpy())
    np.testing.assert_array_equal(np.float32(position["max"]), mesh.vertices.max(0).values.numpy())
    normal = document["bufferViews"][document["accessors"][primitive["attributes"]["NORMAL"]]["bufferView"]]
    normals = np.frombuffer(body, "<f4", 3 * mesh.num_vertices, normal["byteOffset"]).reshape(-1, 3)
    assert np.abs(np.linalg.norm(normals, axis=1) - 1.0).max() < 1e-5
    material = document["materials"][0]["pbrMetallicRoughness"]
    assert (material["metallicFactor"], material["roughnessFactor"]) == (0.0, 0.9)
    assert ("baseColorTexture" in material) == (mesh.material.base_color_texture is not None)
    # Vertex colours would multiply the texture.
    assert not {"COLOR_0", "TEXCOORD_0"} <= set(primitive["attributes"])


def test_glb_and_obj_round_trip(mesh: Mesh, tmp_path: Path) -> None:
    export.save_glb(mesh, tmp_path / "mesh.glb")
    export.save_obj(mesh, tmp_path / "mesh.obj")
    for name in ("mesh.glb", "mesh.obj"):
        again = load_mesh_file(tmp_path / name)
        assert torch.equal(again.vertices, mesh.vertices)
        assert torch.equal(again.faces, mesh.faces)
        torch.testing.assert_close(again.normals, mesh.normals)
        if mesh.uvs is not None:
            torch.testing.assert_close(again.uvs, mesh.uvs, atol=1e-7, rtol=0.0)
            found, wanted = again.material.base_color_texture, mesh.material.base_color_texture
            torch.testing.assert_close(found, wanted, atol=0.5 / 255 + 1e-6, rtol=0.0)
        elif mesh.vertex_colors is not None:
            torch.testing.assert_close(again.vertex_colors, mesh.vertex_colors, atol=1e-5, rtol=0.0)
        else:
            assert again.material.base_color == pytest.approx(mesh.material.base_color, abs=1e-6)
    assert sorted(path.suffix for path in tmp_path.iterdir() if path.suffix == ".png") == (
        [".png"] if mesh.uvs is not None else []
    )


def test_ply_round_trip_is_closed(mesh: Mesh, tmp_path: Path) -> None:
    export.save_ply(mesh, tmp_path / "mesh.ply")
    again = load_mesh_file(tmp_path / "mesh.ply")
    assert meshing.is_watertight(again)
    assert again.num_vertices == meshing.merge_positions(mesh).num_vertices
    assert meshing.volume(again) == pytest.approx(meshing.volume(mesh), rel=1e-6)
    if mesh.vertex_colors is not None:
        assert again.vertex_colors is not None
        torch.testing.assert_close(again.vertex_colors, mesh.vertex_colors, atol=0.5 / 255 + 1e-6, rtol=0.0)


@pytest.mark.parametrize("kind", ["glb", "obj", "ply", "stl"])
def test_another_reader_finds_the_same_mesh(textured: Mesh, tmp_path: Path, kind: str) -> None:
    export.export_asset(textured, tmp_path, cameras=orbit(0.0, 0.0), formats=[kind], size=32)
    loaded = trimesh.load(tmp_path / f"mesh.{kind}", force="mesh")
    assert len(loaded.faces) == textured.num_faces  # pyright: ignore[reportAttributeAccessIssue]
    np.testing.assert_allclose(
        loaded.bounds, np.stack([textured.vertices.min(0).values, textured.vertices.max(0).values])
    )
    loaded.merge_vertices(merge_tex=True, merge_norm=True)  # pyright: ignore[reportAttributeAccessIssue]
    assert loaded.is_watertight  # pyright: ignore[reportAttributeAccessIssue]


def test_export_reports_the_rerender(mesh: Mesh, tmp_path: Path) -> None:
    cameras = orbit([0.0, 120.0, 240.0], [10.0, 40.0, -20.0])
    report = export.export_asset(mesh, tmp_path, cameras=cameras, size=96)
    assert list(report) == ["glb", "obj", "ply", "stl"]
    assert report["glb"]["psnr"] > 45.0
    assert report["obj"]["psnr"] > 45.0
    assert report["stl"]["psnr"] > 60.0
    # A texture becomes colours at the vertices of a coarse mesh.
    assert report["ply"]["psnr"] > (20.0 if mesh.uvs is not None else 45.0)
    for entry in report.values():
        assert entry["bytes"] == sum(os.path.getsize(file) for file in entry["files"])
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {Path(file).name for entry in report.values() for file in entry["files"]}


def test_same_mesh_same_bytes(mesh: Mesh, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        export.export_asset(mesh, tmp_path / folder, cameras=orbit(0.0, 0.0), size=16)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_a_failed_write_leaves_the_old_file(plain: Mesh, tmp_path: Path) -> None:
    export.save_glb(plain, tmp_path / "mesh.glb")
    before = (tmp_path / "mesh.glb").read_bytes()
    with pytest.raises(ValueError, match="JSON compliant"):
        export.save_glb(plain, tmp_path / "mesh.glb", extras={"loss": float("nan")})
    assert (tmp_path / "mesh.glb").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["mesh.glb"]


@pytest.mark.parametrize("kind", ["glb", "obj", "ply", "stl"])
def test_damaged_files_are_one_clear_error(textured: Mesh, tmp_path: Path, kind: str) -> None:
    export.export_asset(textured, tmp_path, cameras=orbit(0.0, 0.0), formats=[kind], size=16)
    path = tmp_path / f"mesh.{kind}"
    data = path.read_bytes()
    for broken in (
        b"",
        data[: len(data) // 2],
        b"\xff" * 64,
        data.replace(b"PNG", b"GNP") if kind == "glb" else b"f 1",
        b"f 1 2 3" if kind == "obj" else data[:-7],  # text may end after any line
    ):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=f"mesh.{kind}"):
            load_mesh_file(path)


def test_unknown_formats_and_empty_meshes(plain: Mesh, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="formats must be among"):
        export.export_asset(plain, tmp_path, cameras=orbit(0.0, 0.0), formats=["3mf"])
    with pytest.raises(ValueError, match=r"mesh.3mf must end in one of \.glb, "):
        load_mesh_file(tmp_path / "mesh.3mf")
    with pytest.raises(ValueError, match="has no faces"):
        glb_bytes(plain.replace(faces=torch.zeros(0, 3, dtype=torch.int64)))
    head = struct.pack("<III", 0x46546C67, 2, 20) + struct.pack("<II", 0, 0x4E4F534A)
    with pytest.raises(ValueError, match="JSON"):
        read_glb(head)


def test_texture_is_right_way_up(plain: Mesh, tmp_path: Path) -> None:
    """Top half red, bottom half blue, in the picture from the file as well."""
    mesh = texture.unwrap(plain, size=128)
    mesh = texture.bake(
        mesh, lambda p: torch.stack([p[:, 1] > 0, 0 * p[:, 1], p[:, 1] <= 0], dim=1).float(), size=128
    )
    export.export_asset(mesh, tmp_path, cameras=orbit(0.0, 0.0), size=16)
    for kind in ("glb", "obj", "ply"):
        image = render_mesh(
            load_mesh_file(tmp_path / f"mesh.{kind}"), orbit(0.0, 0.0), 32, 32, mode="albedo"
        ).images
        # Vertex colours blend over the large flat faces.
        contrast = 0.2 if kind == "ply" else 0.9
        assert image[0, 0, 10, 16] - image[0, 2, 10, 16] > contrast
        assert image[0, 2, 22, 16] - image[0, 0, 22, 16] > contrast


def test_color_curves_are_inverse_and_smooth() -> None:
    values = torch.linspace(0.0, 1.0, 101, requires_grad=True)
    torch.testing.assert_close(linear_to_srgb(srgb_to_linear(values)), values, atol=1e-6, rtol=1e-5)
    assert srgb_to_linear(torch.tensor(0.5)) == pytest.approx(0.21404, abs=1e-5)
    (grad,) = torch.autograd.grad(linear_to_srgb(values).sum(), values)
    assert bool(torch.isfinite(grad).all())


def test_material_is_checked() -> None:
    with pytest.raises(ValueError, match="roughness must lie in"):
        Material(roughness=1.5)
    with pytest.raises(ValueError, match="base_color must be"):
        Material(base_color=(1.0, 2.0, 0.0))


VALIDATE = """
const validator = require('gltf-validator'), fs = require('fs');
validator.validateBytes(new Uint8Array(fs.readFileSync(process.argv[1])))
  .then(report => console.log(JSON.stringify(report.issues)));
"""


def test_khronos_validator_has_nothing_to_say(mesh: Mesh, tmp_path: Path) -> None:
    """Needs node, and gltf-validator where node finds it (NODE_PATH)."""
    node = shutil.which("node")
    if (
        node is None
        or subprocess.run([node, "-e", "require('gltf-validator')"], capture_output=True).returncode
    ):
        pytest.skip("node with the npm package gltf-validator is not installed")
    export.save_glb(mesh, tmp_path / "mesh.glb", extras={"seed": 1})
    command = [node, "-e", VALIDATE, str(tmp_path / "mesh.glb")]
    issues = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    assert issues["numErrors"] == issues["numWarnings"] == issues["numInfos"] == 0, issues["messages"]


def _save_scene(path: Path, scene: trimesh.Scene) -> trimesh.Trimesh:
    """The scene as GLB, and what trimesh makes of the file: all of it, in the world."""
    scene.export(str(path))
    loaded = trimesh.load(path, force="mesh")
    assert isinstance(loaded, trimesh.Trimesh)
    return loaded


def _transform(seed: int, *, mirrored: bool = False) -> np.ndarray:
    random = np.random.default_rng(seed)
    matrix = trimesh.transformations.random_rotation_matrix(random.random(3))
    matrix[:3, :3] *= random.uniform(0.4, 2.0, 3) * (-1.0 if mirrored else 1.0)
    matrix[:3, 3] = random.uniform(-2.0, 2.0, 3)
    return matrix


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("num_meshes", [1, 2, 3])
def test_a_glb_is_read_where_its_nodes_put_it(tmp_path: Path, num_meshes: int, mirrored: bool) -> None:
    """Every mesh below the one before, with a transform of its own; some are shown twice."""
    scene = trimesh.Scene()
    shapes = [trimesh.creation.box((1, 2, 3)), trimesh.creation.icosphere(2), trimesh.creation.cone(1, 2)]
    for index, shape in enumerate(shapes[:num_meshes]):
        parent = {"parent_node_name": f"node {index - 1}"} if index else {}
        matrix = _transform(index, mirrored=mirrored)
        scene.add_geometry(
            shape, node_name=f"node {index}", geom_name=f"shape {index}", transform=matrix, **parent
        )
    scene.graph.update(frame_to="again", matrix=_transform(7), geometry="shape 0")
    truth = _save_scene(tmp_path / "scene.glb", scene)
    mesh = load_mesh_file(tmp_path / "scene.glb")
    assert mesh.num_faces == len(truth.faces) == 12 + sum(len(s.faces) for s in shapes[:num_meshes])
    np.testing.assert_allclose(
        np.sort(mesh.vertices.numpy(), axis=0), np.sort(truth.vertices, axis=0), atol=1e-5
    )
    assert meshing.volume(mesh) == pytest.approx(truth.volume, rel=1e-4)
    assert truth.volume > 0.0


def test_normals_turn_with_their_node(plain: Mesh, tmp_path: Path) -> None:
    document, body = read_glb(glb_bytes(plain))
    scaled = [2.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 1.0, 2.0, 3.0, 1.0]
    document["nodes"][0]["matrix"] = scaled
    _write_glb(tmp_path / "placed.glb", document, body)
    mesh = load_mesh_file(tmp_path / "placed.glb")
    torch.testing.assert_close(
        mesh.vertices, plain.vertices * torch.tensor([2.0, 0.5, -1.0]) + torch.tensor([1.0, 2.0, 3.0])
    )
    assert mesh.normals is not None
    normals = torch.nn.functional.normalize(plain.normals / torch.tensor([2.0, 0.5, -1.0]), dim=-1)
    torch.testing.assert_close(mesh.normals, normals, atol=1e-5, rtol=0.0)
    assert meshing.volume(mesh) == pytest.approx(meshing.volume(plain), rel=1e-4)  # still wound outwards


def _write_glb(path: Path, document: dict, body: bytes) -> None:
    head = json.dumps(document).encode()
    head += b" " * (-len(head) % 4)
    chunks = (
        struct.pack("<II", len(head), 0x4E4F534A) + head + struct.pack("<II", len(body), 0x004E4942) + body
    )
    path.write_bytes(struct.pack("<III", 0x46546C67, 2, 12 + len(chunks)) + chunks)


def test_materials_without_textures_become_colours(plain: Mesh, tmp_path: Path) -> None:
    document, body = read_glb(glb_bytes(plain))
    document["materials"].append({"pbrMetallicRoughness": {"baseColorFactor": [1.0, 0.0, 0.0, 1.0]}})
    primitive = document["meshes"][0]["primitives"][0]
    document["meshes"].append({"primitives": [{**primitive, "material": 1}]})
    document["nodes"].append({"mesh": 1, "translation": [0.0, 0.0, 5.0]})
    document["scenes"][0]["nodes"] = [0, 1]
    _write_glb(tmp_path / "two.glb", document, body)
    mesh = load_mesh_file(tmp_path / "two.glb")
    assert mesh.vertex_colors is not None
    assert mesh.num_faces == 2 * plain.num_faces
    near, far = mesh.vertex_colors[: plain.num_vertices], mesh.vertex_colors[plain.num_vertices :]
    torch.testing.assert_close(near, torch.tensor(plain.material.base_color).expand_as(near))
    torch.testing.assert_close(far, torch.tensor([1.0, 0.0, 0.0]).expand_as(far))
    # A tree is no tree with a circle in it.
    document["nodes"][0]["children"] = [0]
    _write_glb(tmp_path / "circle.glb", document, body)
    with pytest.raises(ValueError, match="node 0 stands at two places"):
        load_mesh_file(tmp_path / "circle.glb")


@pytest.mark.parametrize("kind", ["glb", "obj", "ply", "stl"])
@pytest.mark.parametrize("radius", [0.7, 1.0000001, 1.014, 1.73, 50.0])
def test_a_mesh_in_the_unit_sphere_is_there_in_every_format(
    textured: Mesh, tmp_path: Path, kind: str, radius: float
) -> None:
    mesh = textured.replace(vertices=textured.vertices * (radius / textured.radius))
    fitted = mesh.in_unit_sphere()
    assert (fitted is mesh) == (mesh.radius <= 1.0)
    torch.testing.assert_close(fitted.vertices, mesh.vertices / max(1.0, mesh.radius), atol=1e-5, rtol=0.0)
    export.export_asset(fitted, tmp_path, cameras=orbit(0.0, 0.0), formats=[kind], size=16)
    assert load_mesh_file(tmp_path / f"mesh.{kind}").radius <= 1.0


@pytest.mark.parametrize(("size", "length"), [(0.6, 1.6), (0.6, 1.2), (1.2, 1.6)])
def test_a_spike_does_not_decide_how_large_a_thing_is(size: float, length: float) -> None:
    """A ball with one thin spike; a ball that is itself too large is made smaller as far as it needs."""
    axis = torch.linspace(-1.7, 1.7, 48)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    ball, along = points.norm(dim=-1) - size, torch.tensor([0.0, 0.6, 0.8])
    spike = (points - (points @ along).clamp(0.0, length)[..., None] * along).norm(dim=-1) - 0.08
    mesh = meshing.extract_mesh(torch.minimum(ball, spike), inside="below", bounds=1.7)
    fitted = mesh.in_unit_sphere()
    assert mesh.radius > length
    assert 0.99 < fitted.radius <= 1.0
    assert meshing.is_watertight(fitted)
    assert metrics.volume_iou(fitted, lambda at: at.norm(dim=-1) - min(size, 0.95)) > 0.95
    # Nothing folds: what was farther out still is.
    order = mesh.vertices.norm(dim=-1).argsort()
    assert float(fitted.vertices.norm(dim=-1)[order].diff().min()) > -1e-6
