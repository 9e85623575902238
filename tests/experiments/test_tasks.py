"""The shipped tasks on a random backbone: what they write, and what they say to bad input."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import DictConfig
from PIL import Image

from diffusion.backbone import load, save_backbone
from experiments import catalog
from experiments.run.schema import build
from experiments.tasks.text_to_3d import Config as TextTo3D
from gen3d.splat_ply import load_splats
from tests.diffusion.models import make_parts
from video.decode import decode

Galatea = Callable[..., Any]
SAMPLE = ("experiment=sample/multiview", "budget=smoke", "threads=1", "sampling.num_steps=2")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("backbone") / "my model"
    save_backbone(path, **make_parts(), num_views=4, image_size=64, revision="r1")
    return path


def test_sample_writes_a_grid_and_the_same_again(galatea: Galatea, tmp_path: Path, model: Path) -> None:
    for out in ("a", "b"):
        outcome = galatea(
            *SAMPLE, "prompt=a red mushroom", f"backbone={model}", "num_objects=2", f"out={out}"
        )
        assert outcome.status == 0, outcome.err
    with Image.open(tmp_path / "a" / "views.png") as picture:
        assert picture.size == (4 * 66 - 2, 2 * 66 - 2)
    assert (tmp_path / "a" / "views.png").read_bytes() == (tmp_path / "b" / "views.png").read_bytes()
    report = json.loads((tmp_path / "a" / "report.json").read_text())
    assert len(report["backbone"].pop("weights_sha256")) == 64
    assert report["backbone"] == {"name": "my model", "revision": "r1", "dtype": "float32", "num_views": 4}
    assert report["inputs"]["prompt"]["text"] == "a red mushroom"
    assert report["generated_by_ai"] is True
    assert {"load", "sample", "write"} <= report["seconds"].keys()
    assert -1 <= report["metrics"]["image_text_similarity"] <= 1


def test_a_long_prompt_is_cut_and_that_is_announced(galatea: Galatea, tmp_path: Path, model: Path) -> None:
    prompt = "a red mushroom " * 667
    outcome = galatea(*SAMPLE, f"prompt={prompt}", f"backbone={model}", "out=made")
    assert outcome.status == 0
    announced = [line for line in outcome.err if "longer than the 16 tokens" in line]
    assert len(announced) == 1
    found = re.search(r"its last (\d+) words are left out: '[a-z ]+\.\.\.'$", announced[0])
    assert found is not None, announced
    count = int(found[1])
    kept, rest = load(model).shorten(prompt)
    assert count == len(rest.split()) == 2001 - len(kept.split())
    assert json.loads((tmp_path / "made" / "report.json").read_text())["notes"] == announced


def test_folders_that_are_no_model(galatea: Galatea, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in ("./absent", "./empty"):
        outcome = galatea(*SAMPLE, "prompt=x", f"backbone={folder}", "out=made")
        assert outcome.status == 2
        assert folder.strip("./") in outcome.err[-1]
        assert sum(line.startswith("galatea:") for line in outcome.err) == 1
        assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"]


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_corrupt_weights(galatea: Galatea, tmp_path: Path, part: str) -> None:
    folder = tmp_path / "model"
    save_backbone(folder, **make_parts(), num_views=4, image_size=64, revision="r1")
    (weights,) = (folder / part).glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    outcome = galatea(*SAMPLE, "prompt=x", f"backbone={folder}", "out=made")
    assert outcome.status == 2
    assert weights.name in outcome.err[-1] or part in outcome.err[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


@pytest.mark.parametrize(
    ("argument", "part"),
    [
        ("prompt=", "prompt is empty"),
        ("prompt=\u200b\u2060", "prompt is empty"),
        ("recipe.reconstruct.steps_per_round=-1", "recipe.reconstruct: "),
        ("prior.sampling.num_steps=0", "prior.sampling: "),
        ("turntable.size=127", "even"),
        ("turntable.video.fps=0", "turntable.video: fps"),
        ("turntable.video.fps=2000000", "turntable.video: fps"),
        ("turntable.elevation_deg=91", "turntable: elevation_deg"),
        ("prior.sampling.num_steps=1001", "prior.sampling: "),
        ("prior.sampling.guidance_scale=1e30", "guidance_scale must lie in"),
        ("recipe.reconstruct.fovy_deg=180", "reconstruct fovy_deg"),
        ("representation.resolutions=[32,600]", "volume resolutions"),
        ("recipe.reconstruct.fit.mask=1e30", "fit mask"),
        ("representation.density_scale=1e30", "volume density_scale"),
        (
            "recipe.extract.level=1000",
            "recipe.extract: extract level must lie below half of representation.density_scale",
        ),
        ("recipe.refine.vertex_rate=-1", "refine vertex_rate"),
        ("recipe.redraw.fovy_deg=200", "redraw fovy_deg"),
        ("recipe.texture.size=15", "texture size"),
        ("recipe.texture.views_weight=1e38", "texture views_weight"),
        # What depends on the model is known from its facts.
        ("recipe.redraw.timestep=20", "recipe.redraw: redraw timestep does not go with the prior"),
        ("recipe.reconstruct.timesteps=[600,20]", "reconstruct timesteps[1] does not go with the prior"),
        ("recipe.reconstruct.group_size=6", "reconstruct group_size must be a multiple of the 4 views"),
        ("recipe.redraw.num_views=6", "redraw num_views must be a multiple of the 4 views"),
        ("prior.joint_views=3", "prior joint_views is 3, but backbone 'tiny' was made for 4 views"),
        ("prior.perp_neg=true", "prior perp_neg is for views that are alone"),
        ("backbone.revision=r7", "asked for 'r7'"),
        ("recipe.mesh=1", "unknown key 'recipe.mesh'"),
        (
            "recipe.texture.delight={strength:0,floor:0.5}",
            "delight floor is 0.5, which has no effect while strength",
        ),
        (
            "representation={density_tv:0,color_tv:0,tv_fraction:1}",
            "volume tv_fraction is 1.0, which has no effect",
        ),
    ],
)
def test_text_to_3d_refuses_before_any_work(
    galatea: Galatea, tmp_path: Path, argument: str, part: str
) -> None:
    outcome = galatea(
        "experiment=text_to_3d/quickstart", "prompt=x", "backbone=tiny", "threads=1", argument, "out=made"
    )
    assert outcome.status == 2
    assert len(outcome.err) == 1, "one line, and nothing was loaded"
    assert part in outcome.err[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("recipe.distill.num_views=6",), "distill num_views must be a multiple of the 4 views"),
        (("prior.sampling.num_steps=50",), "prior sampling is of finished pictures, which no stage"),
        (
            ("recipe.distill.shading.ambient=0.5",),
            "shading ambient is 0.5, which has no effect while probability is 0",
        ),
        (("recipe.distill.background_rate=1",), "distill background_rate is 1.0, which has no effect"),
        (
            ("recipe.distill.annealing.mode=hifa", "recipe.distill.annealing.low=[[0,0.5],[1,0.1]]"),
            "annealing low is ((0.0, 0.5), (1.0, 0.1)), which has no effect while mode is hifa",
        ),
        (
            ("prior.background=red", "prompt=a cat on a blue background"),
            "the prompt speaks of its background itself",
        ),
    ],
)
def test_a_baseline_refuses_what_it_would_ignore(
    galatea: Galatea, tmp_path: Path, arguments: tuple[str, ...], part: str
) -> None:
    prompt = () if any(each.startswith("prompt=") for each in arguments) else ("prompt=x",)
    outcome = galatea("experiment=baseline/mvdream", "threads=1", *prompt, *arguments, "out=made")
    assert outcome.status == 2
    assert len(outcome.err) == 1, "one line, and nothing was loaded"
    assert part in outcome.err[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["background", "joint_views", "perp_neg"])
def test_sample_has_no_settings_that_it_ignores(galatea: Galatea, tmp_path: Path, key: str) -> None:
    outcome = galatea(*SAMPLE, "prompt=x", f"sampling.{key}=1", "out=made")
    assert outcome.status == 2
    assert f"unknown key 'sampling.{key}'" in outcome.err[-1]
    assert list(tmp_path.iterdir()) == []


def test_every_budget_of_an_experiment_is_a_file() -> None:
    seconds = {"10s", "30s", "120s"}
    for name in catalog.experiments():
        budgets = set(catalog.budgets(name))
        assert {"smoke", "cpu"} <= budgets <= set(catalog.options("budget")), name
        assert (budgets >= seconds) == ("text_to" in name.partition("/")[0]), name


def test_budgets_go_by_what_else_is_chosen(tmp_path: Path) -> None:
    files = {
        "experiment/my/one.yaml": "defaults: [{/recipe: slow}, {optional /budget/mine: '${recipe}_${budget}'}]",
        "experiment/my/other.yaml": "defaults: [my/one]",
        "experiment/my/fast.yaml": "defaults: [my/one, {override /recipe: fast}]",
        "experiment/my/free.yaml": "defaults: [{/task: sample}]",
    }
    names = ("slow_smoke", "slow_hour", "fast_smoke")
    for file, content in {**files, **{f"budget/mine/{name}.yaml": "" for name in names}}.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(content)
    own = str(tmp_path)
    assert catalog.budgets("my/one", config_dir=own) == ["hour", "smoke"]
    assert catalog.budgets("my/other", {"recipe": "fast"}, own) == ["smoke"]
    assert catalog.budgets("my/fast", config_dir=own) == ["smoke"]
    # Where no file says anything, a budget changes nothing, and any name will do.
    assert catalog.budgets("my/one", {"recipe": "new"}, own) == catalog.options("budget")
    assert catalog.budgets("my/free", config_dir=own) == catalog.options("budget")


@pytest.mark.parametrize("prior", catalog.options("prior"))
@pytest.mark.parametrize("budget", catalog.budgets("text_to_3d/quickstart"))
def test_every_budget_of_text_to_3d_can_be_had(galatea: Galatea, budget: str, prior: str) -> None:
    outcome = galatea(
        "experiment=text_to_3d/quickstart",
        "prompt=x",
        f"budget={budget}",
        f"prior={prior}",
        "turntable.size=130",
        "--cfg",
        "job",
    )
    config = build(TextTo3D, DictConfig(yaml.safe_load(outcome.out)))
    assert config.budget == budget
    assert config.turntable.size == 130


@pytest.mark.slow
def test_quickstart_from_the_embedded_model(galatea: Galatea, tmp_path: Path, tiny_weights: Path) -> None:
    arguments = ("experiment=text_to_3d/quickstart", "prompt=a red mushroom", "budget=smoke", "out=made")
    assert galatea(*arguments).status == 0
    report = json.loads((tmp_path / "made" / "report.json").read_text())
    assert report["metrics"]["mesh"]["watertight"] is True
    assert report["metrics"]["rerender_psnr_db"]["glb"] >= 30
    kinds = {artefact["file"]: artefact["kind"] for artefact in report["artefacts"]}
    assert {kinds[f"mesh.{kind}"] for kind in ("glb", "obj", "ply", "stl")} == {"mesh"}
    assert kinds["turntable.mp4"] == "video"
    clip = decode(tmp_path / "made" / "turntable.mp4")
    assert clip.frames.shape == (12, 3, 128, 256)
    assert report["generated_by_ai"] is True
    assert clip.metadata["comment"].startswith("Made by a generative model: ")
    assert clip.metadata["comment"].endswith("prompt: a red mushroom")


@pytest.mark.slow
def test_a_run_of_gaussians_writes_their_own_file_too(
    galatea: Galatea, tmp_path: Path, tiny_weights: Path
) -> None:
    settings = ("representation=gaussians", "prompt=a red mushroom", "budget=smoke", "threads=1", "out=made")
    outcome = galatea("experiment=baseline/mvdream", *settings)
    assert outcome.status == 0, outcome.err
    report = json.loads((tmp_path / "made" / "report.json").read_text())
    assert report["metrics"]["mesh"]["watertight"] is True
    kinds = {artefact["file"]: artefact["kind"] for artefact in report["artefacts"]}
    assert kinds["gaussians.ply"] == "representation"
    assert len(load_splats(tmp_path / "made" / "gaussians.ply")["means"]) == 800


@pytest.mark.slow
def test_a_mesh_of_true_views_was_made_without_a_model(galatea: Galatea, tmp_path: Path, model: Path) -> None:
    settings = ("budget=smoke", "prior=truth", f"backbone={model}", "recipe.redraw.num_views=4", "out=made")
    outcome = galatea("experiment=text_to_3d/quickstart", "prompt=a red mushroom", *settings)
    assert outcome.status == 0, outcome.err
    folder = tmp_path / "made"
    for name in ("report.json", "provenance.json"):
        assert json.loads((folder / name).read_text())["generated_by_ai"] is False
    comment = decode(folder / "turntable.mp4").metadata["comment"]
    assert "without a generative model" in comment
    assert comment.endswith("prompt: a red mushroom")
