"""Files appear whole or not at all, and one that finds no room says which it was, how much it wanted, and is gone."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from diffusion.files import save_tensors
from experiments.errors import describe
from files.atomic import atomic_path, is_temporary, write_bytes

resource = pytest.importorskip("resource")
LIMIT = 50_000

# One writer of each kind, in a process that may write files of up to LIMIT bytes; Python ignores SIGXFSZ by itself.
WRITERS = """
import json, resource, sys
from pathlib import Path
import torch
from avatar.config import TINY
from avatar.model import TalkingModel
from avatar.storage import save_adapters
from diffusion.backbone import load, save_backbone
from diffusion.files import save_tensors
from files.atomic import write_bytes
from experiments.errors import describe
from experiments.run.checkpoint import CheckpointStore
from experiments.run.files import write_json, write_text
from experiments.run.images import save_png
from experiments.world.shard_files import write_shard
from gen3d.asset import Mesh
from gen3d.export import save_glb, save_obj, save_ply, save_stl
from video.encode import encode

out, tiny = Path(sys.argv[1]), load("tiny")
big, noise = torch.rand(30_000), torch.rand(3, 256, 256, generator=torch.Generator().manual_seed(0))
points = torch.rand(5_000, 3, generator=torch.Generator().manual_seed(0))
mesh = Mesh(vertices=points, faces=torch.arange(4_998).reshape(-1, 3), vertex_colors=points)
writers = {
    "checkpoint": lambda path: CheckpointStore(path).save(4, {"x": big}),
    "tensors.safetensors": lambda path: save_tensors(path, {"x": big}),
    "shard.safetensors": lambda path: write_shard(path, {"x": big}, {"words": 1}),
    "adapters.safetensors": lambda path: save_adapters(path, TalkingModel(tiny.unet, TINY)),
    "backbone": lambda path: save_backbone(path, vae=tiny.vae),
    "mesh.glb": lambda path: save_glb(mesh, path),
    "mesh.obj": lambda path: save_obj(mesh, path),
    "mesh.ply": lambda path: save_ply(mesh, path),
    "mesh.stl": lambda path: save_stl(mesh, path),
    "picture.png": lambda path: save_png(noise, path),
    "video.mp4": lambda path: encode([noise] * 24, path),
    "text.md": lambda path: write_text(path, "x" * 60_000),
    "numbers.json": lambda path: write_json(path, ["x" * 60_000]),
    "bytes": lambda path: write_bytes(path, bytes(60_000)),
}
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
said = {}
for name, write in writers.items():
    try:
        write(out / name)
        said[name] = "written"
    except Exception as error:
        said[name] = describe(error)[0]
print(json.dumps(said))
"""


@pytest.mark.slow
def test_every_writer_names_what_it_could_not_write(
    tmp_path: Path, subprocess_environment: dict[str, str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRITERS, str(tmp_path), str(LIMIT)],
        env=subprocess_environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert len(said) == 14
    for name, line in said.items():
        assert line.startswith(f"{tmp_path / name}"), (name, line)
        assert "File too large" in line, (name, line)
        assert "bytes are needed" in line, (name, line)
        assert line.endswith(
            "; raise the limit on the size of files (ulimit -f), and the same command goes on"
        ), name
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size > 1_000]
    assert left == [], "what could not be finished still takes room"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_one_line_with_the_room_wanted(tmp_path: Path, number: int) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="are needed") as caught, atomic_path(path, need=1234) as half:  # noqa: PT012
        half.write_bytes(b"half")
        raise OSError(number, "no room")
    line, status = describe(caught.value)
    assert line.startswith(f"{path}: no room (1,234 bytes are needed, ")
    assert "the same command goes on" in line
    assert status == 2
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_not_about_this_file_is_left_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, atomic_path(tmp_path / "a") as temporary:  # noqa: PT012
        temporary.write_bytes(b"half")
        (tmp_path / "none").read_bytes()
    assert caught.value.filename == str(tmp_path / "none")
    with pytest.raises(PermissionError) as denied, atomic_path(tmp_path / "a") as temporary:
        raise PermissionError(errno.EACCES, "Permission denied", str(temporary))
    assert describe(denied.value)[0] == f"{tmp_path / 'a'}: Permission denied"
    assert list(tmp_path.iterdir()) == []


def test_tensors_come_back_as_they_were(tmp_path: Path) -> None:
    tensors = {"x": torch.arange(12.0).reshape(3, 4).T, "half": torch.ones(2).half().requires_grad_()}
    save_tensors(tmp_path / "a.safetensors", tensors, {"word": "\u00fc"})
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        assert file.metadata() == {"word": "\u00fc"}
        for name, value in tensors.items():
            assert torch.equal(file.get_tensor(name), value)
    write_bytes(tmp_path / "b", b"1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "b"]
    with atomic_path(tmp_path / "c.png") as temporary:
        assert is_temporary(temporary)
        assert temporary.suffix == ".png"
        temporary.touch()
    assert not any(map(is_temporary, tmp_path.iterdir()))
