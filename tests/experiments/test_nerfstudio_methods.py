"""Galatea's baselines in nerfstudio's trainer."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from gen3d.cameras import ring
from gen3d.mesh_files import load_mesh_file
from gen3d.meshing import is_watertight

if find_spec("nerfstudio") is None or find_spec("torchvision") is None:
    pytest.skip("needs nerfstudio and torchvision", allow_module_level=True)
pytestmark = pytest.mark.slow
SMALL = (
    "budget=smoke",
    "recipe.distill.render_size=[16]",
    "representation.num_samples=8",
    "representation.proposal_samples=[12]",
)


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A pipeline as nerfstudio's trainer builds it."""
    monkeypatch.chdir(tmp_path)
    from experiments import nerfstudio_methods

    def build(method: str = "mvdream", **changed: Any) -> Any:
        torch.manual_seed(3)
        config = nerfstudio_methods._method(method).config.pipeline
        config.prompt, config.overrides = "a red mushroom", SMALL
        for name, value in changed.items():
            setattr(config, name, value)
        return config.setup(device="cpu", world_size=1)

    return build


def train(folder: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nerfstudio.scripts.train", *arguments]
    environment = {**environment, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900, check=False
    )


def test_a_run_from_beginning_to_end(tmp_path: Path, subprocess_environment: dict[str, str]) -> None:
    """With nerfstudio's own checkpoint, which it goes on from, and a mesh."""
    common = ("--pipeline.prompt", "a red mushroom", "--vis", "tensorboard", "--pipeline.overrides", *SMALL)
    first = ("galatea-dreamfusion", "--max-num-iterations", "3", "--timestamp", "one", *common)
    done = train(tmp_path, subprocess_environment, *first)
    assert done.returncode == 0, done.stderr[-2000:]
    folder = tmp_path / "outputs" / "galatea" / "galatea-dreamfusion" / "one"
    saved = folder / "nerfstudio_models"
    assert [path.name for path in saved.iterdir()] == ["step-000000002.ckpt"]
    assert is_watertight(load_mesh_file(folder / "mesh.glb"))
    again = (
        "galatea-dreamfusion",
        "--load-dir",
        str(saved),
        "--max-num-iterations",
        "2",
        "--timestamp",
        "two",
    )
    done = train(tmp_path, subprocess_environment, *again, *common)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (folder.parent / "two" / "nerfstudio_models" / "step-000000004.ckpt").is_file()


def gradients(pipeline: Any, step: int) -> dict[str, torch.Tensor]:
    pipeline.zero_grad()
    _, losses, _ = pipeline.get_train_loss_dict(step)
    torch.stack(list(losses.values())).sum().backward()
    return {name: parameter.grad.clone() for name, parameter in pipeline.model.learnt().items()}


def test_losses_reach_every_parameter_and_a_loaded_one_goes_on(built: Any) -> None:
    pipeline = built()
    optimizers = [torch.optim.Adam(group, lr=0.01) for group in pipeline.get_param_groups().values()]
    assert len(optimizers) == 2
    for step in range(2):
        found = gradients(pipeline, step)
        for optimizer in optimizers:
            optimizer.step()
    silent = [name for name, gradient in found.items() if not gradient.any()]
    assert silent == []
    stored = {name: tensor.clone() for name, tensor in pipeline.state_dict().items()}
    assert not any("background" in name or "prior" in name for name in stored)
    expected = gradients(pipeline, 2)
    other = built()
    other.load_pipeline(stored, 1)
    got = gradients(other, 2)
    assert all(torch.equal(got[name], expected[name]) for name in expected)
    assert not all(torch.equal(got[name], found[name]) for name in expected)


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")  # nerfstudio's cameras
def test_the_viewer_sees_what_we_render(built: Any) -> None:
    """Its world is turned, and its cameras are ours."""
    pipeline = built(method="dreamfusion")
    model, around = pipeline.model, pipeline.datamanager.train_dataset
    with torch.no_grad():
        for parameter in model.learnt().values():
            parameter += 0.3 * torch.rand(parameter.shape, generator=torch.Generator().manual_seed(0))
    c2w = around.cameras.camera_to_worlds
    right, front, up = c2w[0, :, 3].tolist()
    assert abs(right) < 1e-6
    assert front < -2.0
    assert 0.5 < up < 1.0
    live = model.representation.load(pipeline.state.group("representation"))
    ours = ring(8)[torch.tensor([0, 2])]
    wanted = live.render(ours, 64, pipeline.state["distill/background"].expand(2, 3))
    for view, index in ((0, 0), (1, 2)):
        seen = model.get_outputs_for_camera(around.cameras[index : index + 1])
        assert {name: value.shape[-1] for name, value in seen.items()} == {
            "rgb": 3,
            "accumulation": 1,
            "depth": 1,
        }
        assert torch.allclose(seen["rgb"].movedim(-1, 0), wanted.images[view], atol=2e-3)
        assert torch.allclose(seen["accumulation"][..., 0], wanted.opacity[view, 0], atol=2e-3)


def test_it_listens_to_this_machine_alone() -> None:
    from experiments.nerfstudio_methods import dreamfusion, mvdream

    for method in (dreamfusion, mvdream):
        assert method.config.viewer.websocket_host == "127.0.0.1"
        assert method.config.vis == "viewer"
        if not torch.cuda.is_available():
            assert method.config.machine.device_type == "cpu"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"prompt": ""}, "prompt is empty"),
        ({"overrides": ("seed=3",)}, "--pipeline.overrides seed=3: that is said by --machine.seed"),
        ({"overrides": ("turntable.size=64",)}, "no turntable is made"),
        ({"overrides": ("representation.colors=latent",)}, "unknown key 'representation.colors'"),
        ({"overrides": ("backbone=/nowhere",)}, "/nowhere"),
        (
            {"experiment": "text_to_3d/quickstart", "overrides": ()},
            "begins with reconstruct; it must begin with a distillation",
        ),
        ({"experiment": "talk/quickstart"}, "has no 'representation' to choose"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    built: Any, capsys: pytest.CaptureFixture[str], changed: dict[str, Sequence[str]], message: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        built(**changed)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("galatea: ")
    assert message in line
