"""Meshes that users bring: what is kept of them, and what is refused."""

from __future__ import annotations

import base64
import io
import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from gen3d import meshing
from gen3d.asset import Material, Mesh
from gen3d.color import linear_to_srgb, srgb_to_linear
from gen3d.export import save_glb, save_obj, save_ply, save_stl
from gen3d.glb import glb_bytes, read_glb
from gen3d.mesh_files import load_mesh_file
from gen3d.placing import into_unit_sphere
from gen3d.texture import surface_colors

WRITERS = {"glb": save_glb, "obj": save_obj, "ply": save_ply, "stl": save_stl}
KINDS = ["glb", "gltf", "obj", "ply", "stl"]


def png(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=kind)
    return buffer.getvalue()


def checker(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A picture of quarters, each of a colour of its own."""
    colors = np.random.default_rng(seed).integers(0, 256, (2, 2, 3), dtype=np.uint8)
    return colors.repeat(height // 2, axis=0).repeat(width // 2, axis=1)


def middles(mesh: Mesh) -> tuple[torch.Tensor, torch.Tensor]:
    """The middle of each face, and its colour, in the order of the middles."""
    third = torch.full((mesh.num_faces, 3), 1.0 / 3.0)
    colors = surface_colors(mesh, torch.arange(mesh.num_faces), third)
    points = mesh.vertices[mesh.faces].mean(dim=1)
    order = np.lexsort(np.round(points.numpy().T, 4))
    return points[order], colors[order]


def same_surface(mesh: Mesh, other: Mesh, *, colors: float) -> None:
    """The same triangles in any order of faces, vertices and corners, and the same colours in their middles."""
    assert mesh.num_faces == other.num_faces
    assert meshing.volume(mesh) == pytest.approx(meshing.volume(other), rel=1e-5, abs=1e-7)
    for mine, theirs, within in zip(middles(mesh), middles(other), (1e-6, colors), strict=True):
        torch.testing.assert_close(mine, theirs, atol=within, rtol=0.0)


def refused(path: Path, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        load_mesh_file(path)
    said = str(caught.value)
    assert said.startswith(path.name)
    assert "\n" not in said
    assert len(said) < 450


# ------------------------------------------------------------------------------------ our own writers


@st.composite
def meshes(draw: st.DrawFn) -> Mesh:
    """A few boxes apart, of one colour, coloured at the vertices, or textured."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(1, 3))
    boxes = [trimesh.creation.box(random.uniform(0.2, 0.8, 3)) for _ in range(count)]
    for index, box in enumerate(boxes):
        box.apply_translation([1.0 * index, *random.uniform(-0.5, 0.5, 2)])
    whole = trimesh.util.concatenate(boxes)
    # Each face with vertices of its own, so that none is shared across a UV seam.
    faces = torch.arange(3 * len(whole.faces)).reshape(-1, 3)
    vertices = torch.from_numpy(np.asarray(whole.vertices[whole.faces]).reshape(-1, 3).astype(np.float32))
    numbers = torch.from_numpy(random.random((len(vertices), 3), dtype=np.float32))
    kind = draw(st.sampled_from(["plain", "colored", "textured"]))
    if kind == "plain":
        red, green, blue = random.random(3).tolist()
        return Mesh(vertices, faces, material=Material(None, (red, green, blue), 0.25, 0.5))
    if kind == "colored":
        return Mesh(vertices, faces, vertex_colors=numbers)
    size = draw(st.sampled_from([2, 8, 31]))
    picture = torch.from_numpy(random.integers(0, 256, (size, size + 3, 3)).astype(np.float32) / 255.0)
    return Mesh(vertices, faces, uvs=numbers[:, :2], material=Material(picture))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mesh=meshes(), kind=st.sampled_from(["glb", "obj"]))
def test_what_our_writers_write_comes_back(mesh: Mesh, kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"mesh.{kind}"
    WRITERS[kind](mesh, path)
    again = load_mesh_file(path)
    same_surface(again, mesh, colors=0.5 / 255 + 1e-5)
    assert (again.uvs is None) == (mesh.uvs is None)
    if mesh.uvs is not None:
        assert again.material.base_color_texture is not None
        assert again.material.base_color_texture.shape == mesh.material.base_color_texture.shape  # pyright: ignore
    assert (again.material.metallic, again.material.roughness) == pytest.approx(
        (mesh.material.metallic, mesh.material.roughness)
    )


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mesh=meshes(), kind=st.sampled_from(["ply", "stl"]))
def test_what_our_writers_weld_comes_back_closed(mesh: Mesh, kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"mesh.{kind}"
    WRITERS[kind](mesh, path)
    again = load_mesh_file(path)
    welded = meshing.merge_positions(mesh)
    assert torch.equal(again.vertices, welded.vertices)
    assert torch.equal(again.faces, welded.faces)
    if kind == "ply" and mesh.vertex_colors is not None:
        torch.testing.assert_close(again.vertex_colors, welded.vertex_colors, atol=0.5 / 255 + 1e-6, rtol=0.0)
    assert (again.vertex_colors is None) == (kind == "stl")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mesh=meshes())
def test_stl_is_the_shape_of_the_glb(mesh: Mesh, tmp_path: Path) -> None:
    save_stl(mesh, tmp_path / "mesh.stl")
    save_glb(mesh, tmp_path / "mesh.glb")
    found = trimesh.load_mesh(tmp_path / "mesh.stl")
    other = trimesh.load_mesh(tmp_path / "mesh.glb")
    assert found.is_watertight
    assert found.is_winding_consistent
    assert found.volume == pytest.approx(other.volume, rel=1e-6)
    np.testing.assert_array_equal(found.bounds, other.bounds)
    assert not (tmp_path / "mesh.stl").read_bytes().startswith(b"solid")
    raw = trimesh.load_mesh(tmp_path / "mesh.stl", process=False)
    stored = np.frombuffer((tmp_path / "mesh.stl").read_bytes()[84:], "<f4,<f4,<f4,V36,<u2")
    stored = np.stack([stored[name] for name in ("f0", "f1", "f2")], axis=1)
    corners = raw.vertices[raw.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    np.testing.assert_allclose(stored, normals / np.linalg.norm(normals, axis=1, keepdims=True), atol=1e-5)


# --------------------------------------------------------------------------------------- files of others


@pytest.fixture
def scene() -> trimesh.Scene:
    """Two textured solids and a red one, each where its node puts it, one of them mirrored."""
    solids = trimesh.Scene()
    for index, solid in enumerate((trimesh.creation.box((1, 2, 3)), trimesh.creation.icosphere(1))):
        uvs = np.random.default_rng(index).random((len(solid.vertices), 2))
        image = Image.fromarray(checker(16, 8 + 8 * index, index))
        material = trimesh.visual.material.PBRMaterial(baseColorTexture=image, name=f"m {index}")
        solid.visual = trimesh.visual.TextureVisuals(uv=uvs, material=material)
        matrix = trimesh.transformations.rotation_matrix(0.3 + index, [1.0, 2.0, 0.5])
        matrix[:3, :3] *= -0.5 if index else 1.0
        matrix[:3, 3] = [2.0 * index, 0.5, -1.0]
        solids.add_geometry(solid, node_name=f"node {index}", geom_name=f"Würfel {index}", transform=matrix)
    red = trimesh.creation.cone(0.5, 1.0)
    material = trimesh.visual.material.PBRMaterial(baseColorFactor=[255, 0, 0, 255], name="red")
    red.visual = trimesh.visual.TextureVisuals(uv=np.zeros((len(red.vertices), 2)), material=material)
    solids.add_geometry(red, node_name="red", geom_name="red")
    return solids


def test_several_textures_become_one(scene: trimesh.Scene, tmp_path: Path) -> None:
    scene.export(str(tmp_path / "scene.glb"))
    mesh = load_mesh_file(tmp_path / "scene.glb")
    parts = [each for each in scene.dump() if isinstance(each, trimesh.Trimesh)]
    assert mesh.num_faces == sum(len(part.faces) for part in parts)
    assert meshing.volume(mesh) == pytest.approx(sum(abs(part.volume) for part in parts), rel=1e-4)
    expected = []
    for part in parts:
        picture = part.visual.material.baseColorTexture
        solid = Mesh(
            torch.from_numpy(np.array(part.vertices, dtype=np.float32)),
            torch.from_numpy(np.array(part.faces)),
        )
        if picture is None:
            solid = solid.replace(material=Material(None, (1.0, 0.0, 0.0)))
        else:
            uvs = np.stack([part.visual.uv[:, 0], 1.0 - part.visual.uv[:, 1]], axis=1)
            texture = torch.from_numpy(np.asarray(picture.convert("RGB"), dtype=np.float32) / 255.0)
            solid = solid.replace(uvs=torch.from_numpy(uvs.astype(np.float32)), material=Material(texture))
        expected.append(middles(solid))
    points = torch.cat([each[0] for each in expected])
    colors = torch.cat([each[1] for each in expected])
    order = np.lexsort(np.round(points.numpy().T, 4))
    found_points, found_colors = middles(mesh)
    torch.testing.assert_close(found_points, points[order], atol=1e-4, rtol=0.0)
    torch.testing.assert_close(found_colors, colors[order], atol=1e-3, rtol=0.0)


@pytest.mark.parametrize("kind", ["gltf", "obj", "ply", "stl"])
def test_other_writers_files_are_read(scene: trimesh.Scene, tmp_path: Path, kind: str) -> None:
    """From a folder and by a name that are not ASCII."""
    folder = tmp_path / "模型 é"
    folder.mkdir()
    if kind == "gltf":
        for name, data in trimesh.exchange.gltf.export_gltf(scene).items():
            (folder / name.replace("model.gltf", "Stuhl ü.gltf")).write_bytes(data)
        path = folder / "Stuhl ü.gltf"
    else:
        path = folder / f"Stuhl ü.{kind}"
        (scene if kind == "obj" else scene.to_mesh()).export(str(path))
    mesh = load_mesh_file(path)
    scene.export(str(tmp_path / "scene.glb"))
    whole = load_mesh_file(tmp_path / "scene.glb")
    assert mesh.num_faces == whole.num_faces
    assert abs(meshing.volume(mesh)) > 1.0
    torch.testing.assert_close(middles(mesh)[0], middles(whole)[0], atol=1e-4, rtol=0.0)
    if kind in ("gltf", "obj"):
        torch.testing.assert_close(middles(mesh)[1], middles(whole)[1], atol=2e-2, rtol=0.0)


@pytest.mark.parametrize("kind", ["obj", "ply", "ply_text"])
def test_colours_at_vertices_are_srgb(tmp_path: Path, kind: str) -> None:
    box = trimesh.creation.box((1, 1, 1))
    colors = np.random.default_rng(0).integers(0, 256, (len(box.vertices), 4), dtype=np.uint8)
    colors[:, 3] = 255
    box.visual.vertex_colors = colors
    path = tmp_path / f"box.{kind[:3]}"
    more = {"encoding": "ascii"} if kind == "ply_text" else {}
    data = box.export(file_type=kind[:3], **more)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    mesh = load_mesh_file(path)
    assert mesh.vertex_colors is not None
    found = {tuple(p): c for p, c in zip(mesh.vertices.tolist(), mesh.vertex_colors, strict=True)}
    for point, color in zip(np.asarray(box.vertices).tolist(), colors[:, :3], strict=True):
        torch.testing.assert_close(
            found[tuple(point)], torch.from_numpy(color / 255.0).float(), atol=3e-3, rtol=0.0
        )


CUBE = """mtllib cube.mtl
o Cube
v -1 -1 1
v 1 -1 1
v 1 1 1
v -1 1 1
v -1 -1 -1
v 1 -1 -1
v 1 1 -1
v -1 1 -1
vt 0 0
vt 1 0
vt 1 1
vt 0 1
usemtl front
f 1/1 2/2 3/3 4/4
usemtl rest
f 2/1 6/2 7/3 3/4
f 6/1 5/2 8/3 7/4
f 5/1 1/2 4/3 8/4
f 4/1 3/2 7/3 8/4
f 5/1 6/2 2/3 1/4
"""


def write_cube(folder: Path, text: str = CUBE, material: str = "map_Kd Bild%20ü.png") -> Path:
    (folder / "cube.mtl").write_text(
        f"newmtl front\nKd 0 0 1\nnewmtl rest\nKd 1 1 1\n{material}\n", encoding="utf-8"
    )
    (folder / "Bild%20ü.png").write_bytes(png(checker(8, 8)))
    (folder / "cube.obj").write_text(text, encoding="utf-8")
    return folder / "cube.obj"


def test_quads_and_two_materials_by_hand(tmp_path: Path) -> None:
    mesh = load_mesh_file(write_cube(tmp_path))
    assert mesh.num_faces == 12
    assert meshing.is_watertight(mesh)
    assert meshing.volume(mesh) == pytest.approx(8.0)
    points, colors = middles(mesh)
    front = points[:, 2] > 0.99
    assert int(front.sum()) == 2
    torch.testing.assert_close(colors[front], torch.tensor([[0.0, 0.0, 1.0]] * 2), atol=1e-3, rtol=0.0)
    # Below the diagonal from (0, 0) to (1, 1), a third up from the bottom at the right: the lower right quarter.
    right = (points[:, 0] > 0.99) & (points[:, 1] < 0.0)
    wanted = torch.from_numpy(checker(8, 8)[7, 7] / 255.0).float()
    torch.testing.assert_close(colors[right], wanted[None], atol=1e-3, rtol=0.0)


@pytest.mark.parametrize("corners", [3, 4, 5, 9])
@pytest.mark.parametrize("kind", ["obj", "ply", "ply little", "ply big"])
def test_faces_of_any_number_of_corners(tmp_path: Path, corners: int, kind: str) -> None:
    """A prism whose lids have that many corners, and whose sides have four."""
    turn = 2.0 * np.pi * np.arange(corners) / corners
    ring = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    points = [[*xy, z] for z in (0.0, 1.0) for xy in ring]
    faces = [list(range(corners))[::-1], list(range(corners, 2 * corners))]
    faces += [[i, (i + 1) % corners, (i + 1) % corners + corners, i + corners] for i in range(corners)]
    path = tmp_path / f"prism.{kind[:3]}"
    if kind == "obj":
        lines = [f"v {x} {y} {z}" for x, y, z in points]
        lines += ["f " + " ".join(str(index + 1) for index in face) for face in faces]
    else:
        lines = [
            "ply",
            "format ascii 1.0",
            f"element vertex {len(points)}",
            *(f"property float {a}" for a in "xyz"),
        ]
        lines += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header"]
        lines += [f"{x} {y} {z}" for x, y, z in points]
        lines += [" ".join(map(str, [len(face), *face])) for face in faces]
    path.write_text("\n".join(lines) + "\n")
    if kind.startswith("ply "):
        order = "<>"[kind == "ply big"]
        head = lines[: lines.index("end_header") + 1]
        head[1] = f"format binary_{kind[4:]}_endian 1.0"
        head[-1:] = ["property float quality", "element edge 1", "property int vertex1", "end_header"]
        body = b"".join(struct.pack(f"{order}3f", *point) for point in points)
        body += b"".join(struct.pack(f"{order}B{len(face)}if", len(face), *face, 1.0) for face in faces)
        path.write_bytes(("\n".join(head) + "\n").encode() + body + bytes(4))
        whole = path.read_bytes()
        path.write_bytes(whole[:-20])
        refused(path, "cut short or damaged among its")
        path.write_bytes(whole)
    mesh = load_mesh_file(path)
    assert meshing.is_watertight(mesh)
    area = 0.5 * corners * np.sin(2.0 * np.pi / corners)
    assert meshing.volume(mesh) == pytest.approx(area, rel=1e-5)


def test_textures_repeat_as_in_the_file(tmp_path: Path) -> None:
    """UVs from -1.5 to 2.5 on one face: the picture of quarters is seen four times along each side."""
    text = CUBE.replace("vt 0 0", "vt -1.5 -1.5").replace("vt 1 0", "vt 2.5 -1.5")
    mesh = load_mesh_file(
        write_cube(tmp_path, text.replace("vt 1 1", "vt 2.5 2.5").replace("vt 0 1", "vt -1.5 2.5"))
    )
    assert mesh.uvs is not None
    assert float(mesh.uvs.min()) >= 0.0
    assert float(mesh.uvs.max()) <= 1.0
    weights = torch.from_numpy(np.random.default_rng(0).dirichlet([1.0] * 3, (mesh.num_faces, 50))).float()
    picture = torch.from_numpy(checker(8, 8) / 255.0).float()
    for face in range(mesh.num_faces):
        corners = mesh.vertices[mesh.faces[face]]
        points = weights[face] @ corners
        if float(corners[:, 0].min()) > 0.99:  # the right side: u from +Z to -Z, v from -Y to +Y
            u, v = 4.0 * (1.0 - points[:, 2]) / 2.0 - 1.5, 4.0 * (points[:, 1] + 1.0) / 2.0 - 1.5
            x, y = 8.0 * (u % 1.0), 8.0 * ((1.0 - v) % 1.0)
            clear = ((x % 4.0 - 2.0).abs() < 1.4) & ((y % 4.0 - 2.0).abs() < 1.4)  # not between two quarters
            found = surface_colors(mesh, torch.full((50,), face), weights[face])
            torch.testing.assert_close(found[clear], picture[y.long(), x.long()][clear], atol=1e-3, rtol=0.0)
            assert int(clear.sum()) > 5


def box_document(**changes: Any) -> tuple[dict[str, Any], bytes]:
    box = trimesh.creation.box((1, 1, 1))
    mesh = Mesh(torch.from_numpy(box.vertices.astype(np.float32)), torch.from_numpy(np.array(box.faces)))
    if changes.pop("textured", False):
        uvs = torch.rand(8, 2, generator=torch.Generator().manual_seed(0))
        mesh = mesh.replace(uvs=uvs, material=Material(torch.from_numpy(checker(8, 8) / 255.0).float()))
    if changes.pop("colored", False):
        mesh = mesh.replace(vertex_colors=torch.rand(8, 3, generator=torch.Generator().manual_seed(1)))
    document, body = read_glb(glb_bytes(mesh))
    return document | changes, body


def write_glb(path: Path, document: dict[str, Any], body: bytes) -> Path:
    head = json.dumps(document).encode()
    head += b" " * (-len(head) % 4)
    chunks = (
        struct.pack("<II", len(head), 0x4E4F534A) + head + struct.pack("<II", len(body), 0x004E4942) + body
    )
    path.write_bytes(struct.pack("<III", 0x46546C67, 2, 12 + len(chunks)) + chunks)
    return path


def write_gltf(path: Path, document: dict[str, Any], body: bytes, uri: str | None = None) -> Path:
    if uri is None:
        uri = "data:application/octet-stream;base64," + base64.b64encode(body).decode()
    document["buffers"][0]["uri"] = uri
    path.write_text(json.dumps(document))
    return path


def test_factors_tint_textures_and_colours_in_linear_light(tmp_path: Path) -> None:
    document, body = box_document(textured=True)
    plain = load_mesh_file(write_glb(tmp_path / "plain.glb", document, body)).material.base_color_texture
    document["materials"][0]["pbrMetallicRoughness"]["baseColorFactor"] = [0.5, 1.0, 0.25, 1.0]
    tinted = load_mesh_file(write_glb(tmp_path / "tinted.glb", document, body)).material.base_color_texture
    assert plain is not None
    factor = torch.tensor([0.5, 1.0, 0.25])
    torch.testing.assert_close(tinted, linear_to_srgb(srgb_to_linear(plain) * factor), atol=1e-5, rtol=0.0)
    document, body = box_document(colored=True)
    plain = load_mesh_file(write_glb(tmp_path / "colors.glb", document, body)).vertex_colors
    document["materials"][0]["pbrMetallicRoughness"]["baseColorFactor"] = [0.5, 1.0, 0.25, 1.0]
    tinted = load_mesh_file(write_glb(tmp_path / "tinted.glb", document, body)).vertex_colors
    assert plain is not None
    torch.testing.assert_close(tinted, linear_to_srgb(srgb_to_linear(plain) * factor), atol=1e-5, rtol=0.0)


def test_colours_at_vertices_tint_a_texture(tmp_path: Path) -> None:
    """A mesh has one or the other, so both become colours at the vertices."""
    document, body = box_document(textured=True)
    path = write_glb(tmp_path / "box.glb", document, body)
    texture = load_mesh_file(path)
    primitive = document["meshes"][0]["primitives"][0]
    primitive["attributes"]["COLOR_0"] = len(document["accessors"])
    accessor = {"componentType": 5123, "normalized": True, "count": 8, "type": "VEC4"}
    document["accessors"].append({"bufferView": len(document["bufferViews"]), **accessor})
    document["bufferViews"].append({"buffer": 0, "byteOffset": len(body), "byteLength": 64})
    light = np.random.default_rng(0).integers(0, 65536, (8, 4)).astype("<u2")
    document["buffers"][0]["byteLength"] = len(body) + 64
    both = load_mesh_file(write_glb(path, document, body + light.tobytes()))
    from gen3d.texture import texture_to_vertex_colors

    looked_up = texture_to_vertex_colors(texture).vertex_colors
    assert looked_up is not None
    wanted = linear_to_srgb(srgb_to_linear(looked_up) * torch.from_numpy(light[:, :3] / 65535.0).float())
    torch.testing.assert_close(both.vertex_colors, wanted, atol=1e-4, rtol=0.0)
    assert both.material.base_color_texture is None


def test_interleaved_and_integer_attributes(tmp_path: Path) -> None:
    """Positions as 16-bit integers and UVs as 8-bit fractions, in one block with holes, under a node that scales."""
    box = trimesh.creation.box((2, 2, 2))
    rows = np.zeros(8, dtype=[("position", "<i2", 3), ("pad", "V2"), ("uv", "u1", 2), ("end", "V2")])
    rows["position"] = np.round(box.vertices * 100)
    rows["uv"] = np.random.default_rng(0).integers(0, 256, (8, 2))
    body = rows.tobytes() + np.asarray(box.faces, dtype="<u2").tobytes()
    document = {
        "asset": {"version": "2.0"},
        "extensionsRequired": ["KHR_mesh_quantization", "KHR_materials_unlit"],
        "nodes": [{"mesh": 0, "scale": [0.01] * 3, "camera": 0}],
        "cameras": [{"type": "perspective", "perspective": {"yfov": 1.0, "znear": 0.1}}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "TEXCOORD_0": 1}, "indices": 2, "material": 0}]}],
        "materials": [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}],
        "textures": [{"source": 0}],
        "images": [{"uri": "data:image/jpeg;base64," + base64.b64encode(png(checker(8, 8), "JPEG")).decode()}],
        "accessors": [
            {"bufferView": 0, "componentType": 5122, "count": 8, "type": "VEC3"},
            {"bufferView": 0, "byteOffset": 8, "componentType": 5121, "normalized": True, "count": 8, "type": "VEC2"},
            {"bufferView": 1, "componentType": 5123, "count": 36, "type": "SCALAR"},
        ],
        "bufferViews": [
            {"buffer": 0, "byteLength": 96, "byteStride": 12},
            {"buffer": 0, "byteOffset": 96, "byteLength": 72},
        ],
        "buffers": [{"byteLength": len(body)}],
    }  # fmt: skip
    mesh = load_mesh_file(write_gltf(tmp_path / "box.gltf", document, body))
    assert meshing.volume(mesh) == pytest.approx(8.0, rel=1e-5)
    assert mesh.uvs is not None
    torch.testing.assert_close(mesh.uvs, torch.from_numpy(rows["uv"] / 255.0).float())


def test_moved_textures_and_older_materials(tmp_path: Path) -> None:
    document, body = box_document(textured=True)
    plain = load_mesh_file(write_glb(tmp_path / "box.glb", document, body))
    pbr = document["materials"][0]["pbrMetallicRoughness"]
    moved = {"scale": [0.5, 0.25], "offset": [0.1, 0.2]}
    pbr["baseColorTexture"]["extensions"] = {"KHR_texture_transform": moved}
    mesh = load_mesh_file(write_glb(tmp_path / "moved.glb", document, body))
    assert plain.uvs is not None
    wanted = plain.uvs * torch.tensor(moved["scale"]) + torch.tensor(moved["offset"])
    torch.testing.assert_close(mesh.uvs, wanted, atol=1e-6, rtol=0.0)
    moved["rotation"] = 0.5  # pyright: ignore[reportArgumentType]
    refused(write_glb(tmp_path / "turned.glb", document, body), "a texture is turned")
    glossy = {"diffuseTexture": {"index": 0}, "diffuseFactor": [1.0, 1.0, 1.0, 1.0]}
    document["materials"] = [{"extensions": {"KHR_materials_pbrSpecularGlossiness": glossy}}]
    mesh = load_mesh_file(write_glb(tmp_path / "glossy.glb", document, body))
    assert torch.equal(mesh.material.base_color_texture, plain.material.base_color_texture)  # pyright: ignore
    document["samplers"][0]["wrapS"] = 33648
    refused(write_glb(tmp_path / "mirrored.glb", document, _beyond(document, body)), "mirrored")
    document["samplers"][0]["wrapS"] = 33071
    mesh = load_mesh_file(write_glb(tmp_path / "clamped.glb", document, _beyond(document, body)))
    assert mesh.uvs is not None
    assert float(mesh.uvs.max()) > 1.0  # as here, where a texture ends at its border


def _beyond(document: dict[str, Any], body: bytes) -> bytes:
    """The file's bytes with UVs twice as large."""
    accessor = document["accessors"][document["meshes"][0]["primitives"][0]["attributes"]["TEXCOORD_0"]]
    view = document["bufferViews"][accessor["bufferView"]]
    start, end = view["byteOffset"], view["byteOffset"] + view["byteLength"]
    return body[:start] + (2.0 * np.frombuffer(body[start:end], "<f4")).tobytes() + body[end:]


# ------------------------------------------------------------------------------------------ broken files


@pytest.mark.parametrize("kind", ["glb", "obj", "ply", "stl"])
@pytest.mark.parametrize("value", ["nan", "inf", "1e30"])
def test_numbers_that_are_none_are_refused(tmp_path: Path, kind: str, value: str) -> None:
    path = tmp_path / f"box.{kind}"
    box = trimesh.creation.box((1, 1, 1))
    mesh = Mesh(torch.from_numpy(box.vertices.astype(np.float32)), torch.from_numpy(np.array(box.faces)))
    WRITERS[kind](mesh, path)
    data = path.read_bytes()
    if kind == "obj":
        path.write_text(data.decode().replace("v 0.5", f"v {value}", 1))
    else:
        path.write_bytes(data.replace(struct.pack("<f", 0.5), struct.pack("<f", float(value))))
    refused(path, "NaN or infinite|a coordinate is 1e\\+30|not finite|must be finite")


def test_clouds_empty_files_and_absurd_sizes(tmp_path: Path) -> None:
    points = trimesh.PointCloud(np.random.default_rng(0).random((50, 3)))
    (tmp_path / "cloud.ply").write_bytes(points.export(file_type="ply"))
    refused(tmp_path / "cloud.ply", "50 points and no faces")
    (tmp_path / "cloud.obj").write_text("v 0 0 0\nv 1 0 0\n")
    refused(tmp_path / "cloud.obj", "2 points and no faces")
    for kind in KINDS:
        (tmp_path / f"empty.{kind}").write_bytes(b"")
        refused(tmp_path / f"empty.{kind}", f"empty.{kind} is no ")
        refused(tmp_path / f"missing.{kind}", f"there is no file missing.{kind}")
        (tmp_path / f"folder.{kind}").mkdir()
        refused(tmp_path / f"folder.{kind}", "there is no file")
    with (tmp_path / "huge.obj").open("wb") as file:
        file.truncate(1 << 31)
    refused(tmp_path / "huge.obj", "2,147,483,648 bytes, up to 536,870,912 are read")
    (tmp_path / "flat.obj").write_text("v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n")
    refused(tmp_path / "flat.obj", "lie on a line")
    (tmp_path / "same.obj").write_text("v 0 0 0\nv 0 0 0\nv 2 0 0\nf 1 2 3\nf 1 1 3\n")
    refused(tmp_path / "same.obj", "no triangle with three different corners")
    (tmp_path / "far.obj").write_text("v 500000 0 0\nv 500001 0 0\nv 500000 1 0\nf 1 2 3\n")
    refused(tmp_path / "far.obj", "lies 500001 from the origin")
    (tmp_path / "dust.obj").write_text("v 0 0 0\nv 1e-9 0 0\nv 0 1e-9 0\nf 1 2 3\n")
    refused(tmp_path / "dust.obj", "longest side is 1e-09")
    refused(write_glb(tmp_path / "bomb.glb", *_bomb()), "vertices and .* triangles, up to")
    head = (
        "ply\nformat binary_little_endian 1.0\nelement vertex 0\nproperty float x\nelement face 99999999999\n"
    )
    (tmp_path / "many.ply").write_text(head + "property list uchar int vertex_indices\nend_header\n\0\0\0\0")
    refused(tmp_path / "many.ply", "99,999,999,999 triangles, up to")


def _bomb() -> tuple[dict[str, Any], bytes]:
    """A small file that shows one mesh very often."""
    document, body = box_document()
    document["meshes"][0]["primitives"] *= 1000
    document["nodes"] = [{"mesh": 0} for _ in range(400)]
    document["scenes"][0]["nodes"] = list(range(400))
    return document, body


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: d["accessors"][0].update(count=10**12), "triangles, up to"),
        (lambda d: d["accessors"][0].update(count=9), "reaches beyond its bytes"),
        (lambda d: d["accessors"][0].update(count=-1), "has -1 values"),
        (lambda d: d["accessors"][0].update(byteOffset=-4), "reaches beyond its bytes"),
        (lambda d: d["accessors"][0].update(sparse={}), "sparse or compressed"),
        (lambda d: d["accessors"][0].pop("bufferView"), "sparse or compressed"),
        (lambda d: d["bufferViews"][0].update(byteLength=10**9), "is damaged: bytes 0 to"),
        (lambda d: d["bufferViews"][0].update(byteOffset=-8), "is damaged: bytes -8"),
        (lambda d: d["bufferViews"][0].update(byteStride=10**9), "reaches beyond its bytes"),
        (lambda d: d["meshes"][0]["primitives"][0].update(mode=1), "mode 1, only triangles"),
        (lambda d: d["meshes"][0]["primitives"][0].update(material=7), "number 7 of 1 materials"),
        (lambda d: d["meshes"][0]["primitives"][0].update(indices=0), "corners|vertices"),
        (lambda d: d["meshes"][0]["primitives"][0]["attributes"].pop("POSITION"), "no POSITION"),
        (lambda d: d["meshes"][0]["primitives"][0]["attributes"].pop("TEXCOORD_0"), "texture and no TEXCOORD_0"),
        (lambda d: d["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"].update(texCoord=1), "TEXCOORD_1"),
        (lambda d: d["nodes"][0].update(children=[0]), "node 0 stands at two places"),
        (lambda d: d["nodes"][0].update(matrix=[float("nan")] * 16), "NaN or infinite"),
        (lambda d: d["scenes"][0].update(nodes=[]), "shows no mesh"),
        (lambda d: d["scenes"][0].update(nodes=[-1]), "number -1 of 1 nodes"),
        (lambda d: d.update(extensionsRequired=["KHR_draco_mesh_compression"]), "needs KHR_draco_mesh_compression"),
        (lambda d: d.update(asset={"version": "1.0"}), "is glTF 1.0"),
        (lambda d: d.update(meshes={}), "is no glTF"),
        (lambda d: d.update(nodes=3), "is no glTF"),
        (lambda d: d["textures"][0].pop("source"), "format that is not read"),
        (lambda d: d["images"][0].update(bufferView=0), "no readable picture"),
    ],
)  # fmt: skip
def test_damaged_gltf_says_what_is_wrong(tmp_path: Path, change: Any, reason: str) -> None:
    document, body = box_document(textured=True)
    load_mesh_file(write_gltf(tmp_path / "box.gltf", document, body))
    change(document)
    refused(write_gltf(tmp_path / "box.gltf", document, body), reason)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.replace("f 1/1", "f 0/1"), "vertex 0; they are counted from 1"),
        (lambda t: t.replace("f 1/1", "f 99/1"), "99|98"),
        (lambda t: t.replace("vt 0 0", "vt 0 x"), "is no OBJ"),
        (lambda t: t.replace("v 1 1 1", "v 1 1 1 0.5 0.5 0.5"), "some of its vertices have colours"),
        (lambda t: t.replace("f 1/1 2/2 3/3 4/4\n", "f -8/1 -7/2 -6/3 -5/4\nv 0 0 0\n"), "count backwards"),
        (lambda t: t.replace("v 1 1 1\n", "v 1 1\n"), "or a line is cut short"),
        (lambda t: t.replace("usemtl rest", "mtllib other.mtl\nusemtl rest"), "2 material libraries"),
        (lambda t: t.replace("usemtl ", "usemtl no "), "describes none of the materials"),
        (lambda t: t.replace("vt ", "# "), "texture and no texture coordinates"),
        (lambda t: t[:600].replace("f ", "l "), "is no OBJ"),
    ],
)
def test_damaged_obj_says_what_is_wrong(tmp_path: Path, change: Any, reason: str) -> None:
    refused(write_cube(tmp_path, change(CUBE)), reason)


def test_trimesh_keeps_its_doubts_to_itself(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = trimesh.creation.box((1, 1, 1)).export(file_type="stl_ascii")
    assert isinstance(text, str)
    (tmp_path / "box.stl").write_text(text.replace("normal 0.0", "normal none", 1))
    assert meshing.is_watertight(load_mesh_file(tmp_path / "box.stl"))
    (tmp_path / "box.stl").write_text(text[: len(text) // 2])
    refused(tmp_path / "box.stl", "cut short")
    (tmp_path / "box.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n")
    refused(tmp_path / "box.obj", "it is damaged .IndexError: ")
    head = "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
    head += "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    (tmp_path / "box.ply").write_text(head + "0 0 0\n1e99 0 0\n0 1 0\n3 0 1 2\n")
    refused(tmp_path / "box.ply", "overflow")
    document, body = box_document()
    document["nodes"][0]["scale"] = [2.0] * 3
    write_glb(tmp_path / "box.glb", document, body.replace(struct.pack("<f", 0.5), struct.pack("<f", np.nan)))
    refused(tmp_path / "box.glb", "vertices are NaN or infinite")
    assert capfd.readouterr() == ("", "")


TRIANGLE = ["0 0 0", "1 0 0", "0 1 0", "3 0 1 2"]


@pytest.mark.parametrize(
    ("counts", "more", "rows", "reason"),
    [
        ((4, 2), "", [*TRIANGLE[:3], "0 0 1", TRIANGLE[3]], "1 of 2 lines of face"),
        ((9, 1), "", TRIANGLE, "is no PLY"),
        ((3, 1), "", [*TRIANGLE[:3], "3 0 1 7"], "name vertices 0 to 7"),
        ((3, 1), "", [TRIANGLE[0], "1 0 x", *TRIANGLE[2:]], "is no PLY"),
        ((3, 1), "int", [*(row + " 9 9 9" for row in TRIANGLE[:3]), TRIANGLE[3]], "vertex colours are int32"),
        ((3, 1), "faces", [*TRIANGLE[:3], TRIANGLE[3] + " 9 9 9"], "colours are on its faces"),
    ],
)
def test_damaged_ply_says_what_is_wrong(
    tmp_path: Path, counts: tuple[int, int], more: str, rows: list[str], reason: str
) -> None:
    head = [
        "ply",
        "format ascii 1.0",
        f"element vertex {counts[0]}",
        *(f"property float {axis}" for axis in "xyz"),
    ]
    head += [f"property int {name}" for name in ("red", "green", "blue") if more == "int"]
    head += [f"element face {counts[1]}", "property list uchar int vertex_indices"]
    head += [f"property uchar {name}" for name in ("red", "green", "blue") if more == "faces"]
    (tmp_path / "box.ply").write_text("\n".join([*head, "end_header", *rows]) + "\n")
    refused(tmp_path / "box.ply", reason)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), kind=st.sampled_from(KINDS))
def test_any_damage_is_one_line_or_a_sound_mesh(tmp_path: Path, data: st.DataObject, kind: str) -> None:
    if kind == "obj":
        path = write_cube(tmp_path)
    elif kind == "gltf":
        path = write_gltf(tmp_path / "box.gltf", *box_document(textured=True))
    else:
        path = tmp_path / f"box.{kind}"
        WRITERS[kind](load_mesh_file(write_cube(tmp_path)), path)
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    mesh, said = None, ""
    try:
        mesh = load_mesh_file(path)
    except ValueError as error:
        said = str(error)
    assert (mesh is not None and mesh.num_faces > 0) or said.startswith(path.name)
    assert "\n" not in said


# ---------------------------------------------------------------------------------------- files of malice

OUTSIDE = ["../secret.png", "/etc/hostname", "sub/../../secret.png", "link.png", "C:\\secret.png", "..\\secret.png",
           "http://127.0.0.1:9/x.png", "file:///etc/hostname", "~/secret.png", "%2e%2e/secret.png", "\0", "missing.png",
           "folder"]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder beside which lies a picture that is nobody's business, with a link to it inside."""
    (tmp_path / "secret.png").write_bytes(png(checker(8, 8)))
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "folder").mkdir()
    os.symlink(tmp_path / "secret.png", tmp_path / "in" / "link.png")
    (tmp_path / "in" / "sub" / "fine.png").write_bytes(png(checker(8, 8)))
    return tmp_path / "in"


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("kind", ["obj texture", "obj library", "gltf image", "gltf buffer", "ply texture"])
def test_files_outside_are_never_read(folder: Path, kind: str, name: str) -> None:
    path = folder / f"box.{kind[:4].strip()}"
    reason = "own folder|not there|no name of a file"
    if kind.startswith("obj"):
        library = "cube.mtl" if kind == "obj texture" else name
        write_cube(folder, CUBE.replace("cube.mtl", library), f"map_Kd {name}").rename(path)
    elif kind.startswith("gltf"):
        document, body = box_document(textured=True)
        if kind == "gltf image":
            document["images"][0] = {"uri": name}
        write_gltf(path, document, body, name if kind == "gltf buffer" else None)
    else:
        head = f"ply\nformat ascii 1.0\ncomment TextureFile {name}\nelement vertex 3\nproperty float x\n"
        head += "property float y\nproperty float z\nproperty float s\nproperty float t\nelement face 1\n"
        head += "property list uchar int vertex_indices\nend_header\n"
        path.write_text(head + "0 0 0 0 0\n1 0 0 1 0\n0 1 0 0 1\n3 0 1 2\n")
    if "\0" in name or name == "%2e%2e/secret.png":
        reason += "|is no "
    refused(path, reason)


def test_a_file_further_in_is_read(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("sub/fine.png", "sub\\fine.png", "./sub/../sub/fine.png"):
        mesh = load_mesh_file(write_cube(folder, CUBE, f"map_Kd {name}"))
        assert mesh.material.base_color_texture is not None
    document, body = box_document(textured=True)
    document["images"][0] = {"uri": "sub/%66ine.png"}
    assert (
        load_mesh_file(write_gltf(folder / "a.gltf", document, body)).material.base_color_texture is not None
    )
    refused(
        write_cube(folder, CUBE, "map_Kd gone.png"), "'gone.png', which is not there; put it beside cube.obj"
    )
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (png(checker(8, 8))[:60], "no readable picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "no readable picture"),
        (png(np.zeros((8, 8), dtype=np.uint16)), "more than 8 bits"),
        (png(np.zeros((1, 8193), dtype=np.uint8)), "8193 x 1 texels"),
    ],
)
def test_pictures_that_are_none(tmp_path: Path, data: bytes, reason: str) -> None:
    write_cube(tmp_path, CUBE, "map_Kd bad.png")
    (tmp_path / "bad.png").write_bytes(data)
    refused(tmp_path / "cube.obj", reason)
    document, body = box_document(textured=True)
    document["images"][0] = {"uri": "bad.png"}
    refused(write_gltf(tmp_path / "box.gltf", document, body), reason)


# --------------------------------------------------------------------------------------- the unit sphere


@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.floats(1e-4, 1e5),
    radius=st.floats(0.1, 1.0),
    away=st.floats(0.0, 50.0),
)
@settings(max_examples=40, deadline=None)
def test_into_the_unit_sphere_and_back(seed: int, size: float, radius: float, away: float) -> None:
    random = np.random.default_rng(seed)
    points = size * (random.standard_normal((20, 3)) + away * random.standard_normal(3))
    mesh = Mesh(torch.from_numpy(points.astype(np.float32)), torch.arange(18).reshape(-1, 3))
    placed, placement = into_unit_sphere(mesh, radius)
    assert radius * (1.0 - 1e-5) < placed.radius <= radius
    middle = (placed.vertices.amax(0) + placed.vertices.amin(0)) / 2.0
    torch.testing.assert_close(middle, torch.zeros(3), atol=1e-6, rtol=0.0)
    again = placement.undo(placed)
    torch.testing.assert_close(again.vertices, mesh.vertices, atol=1e-6 * float(mesh.radius), rtol=1e-6)
    assert torch.equal(again.faces, mesh.faces)
    # The axes stay: what was up is up.
    assert int(placed.vertices[:, 1].argmax()) == int(mesh.vertices[:, 1].argmax())


def test_what_has_no_size_is_not_placed() -> None:
    mesh = Mesh(torch.ones(3, 3), torch.tensor([[0, 1, 2]]))
    with pytest.raises(ValueError, match="all vertices of mesh are at one point"):
        into_unit_sphere(mesh)
    with pytest.raises(ValueError, match="radius must lie above 0 and up to 1, got 2"):
        into_unit_sphere(mesh, 2.0)
