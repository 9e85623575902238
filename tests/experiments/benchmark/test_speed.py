"""The benchmark of speed: the timer by a clock that is told, the shapes, missing peers, and the task end to end."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from diffusion.backbone import load, save_backbone
from experiments import compose
from experiments.benchmark import speed_peers, speed_table
from experiments.benchmark.speed_shapes import bumpy_sphere, rays_through
from experiments.benchmark.speed_steps import Distillation
from experiments.benchmark.timing import Timing, clock, plain, side_by_side
from experiments.components import names
from experiments.run.backbones import BackboneConfig
from experiments.tasks.benchmark_speed import _step_settings
from experiments.tasks.configs.benchmark_speed import Config
from gen3d.asset import Mesh
from gen3d.meshing import is_watertight
from gen3d.render.rays import near_far
from tests.diffusion.models import make_parts

BENCHMARK = "experiment=benchmark/speed"
CPU = torch.device("cpu")
Galatea = Callable[..., Any]


class Hours:
    """A clock that stands still but for the work that says how long it takes."""

    def __init__(self) -> None:
        self.time, self.order = 0.0, []

    def __call__(self) -> float:
        return self.time

    def work(self, name: str, *seconds: float) -> Callable[[], Callable[[], None]]:
        left = list(seconds)

        def go() -> None:
            self.order.append(name)
            self.time += left.pop(0) if len(left) > 1 else left[0]

        return plain(go)


def test_the_sides_take_turns_and_the_first_go_does_not_count() -> None:
    hours = Hours()
    timings = side_by_side({"a": hours.work("a", 9.0, 1.0), "b": hours.work("b", 50.0, 3.0)}, hours, turns=3)
    assert "".join(hours.order) == "ab" + 3 * "ab"
    assert timings == {"a": Timing(seconds=(1.0, 1.0, 1.0)), "b": Timing(seconds=(3.0, 3.0, 3.0))}
    assert timings["b"].over(timings["a"]) == {"median": 3.0, "least": 3.0, "greatest": 3.0}


def test_a_turn_of_something_short_is_filled() -> None:
    hours = Hours()
    timings = side_by_side(
        {"short": hours.work("s", 0.25), "long": hours.work("l", 2.0)}, hours, turns=2, turn_seconds=1.0
    )
    assert "".join(hours.order) == "ssll" + 2 * "ssssl"
    assert timings["short"].median == pytest.approx(0.25)


def test_what_takes_long_has_two_turns_at_least() -> None:
    hours = Hours()
    timings = side_by_side({"a": hours.work("a", 10.0)}, hours, turns=5, limit_seconds=1.0)
    assert timings["a"].seconds == (10.0, 10.0)


def test_what_is_prepared_does_not_count() -> None:
    hours = Hours()

    def prepare() -> Callable[[], None]:
        hours.time += 100.0
        return hours.work("a", 2.0)()

    assert side_by_side({"a": prepare}, hours, turns=2)["a"].seconds == (2.0, 2.0)


def test_ratios_are_those_of_the_turns() -> None:
    ours, theirs = Timing(seconds=(1.0, 2.0, 4.0)), Timing(seconds=(3.0, 8.0, 8.0))
    assert theirs.over(ours) == {"median": 3.0, "least": 2.0, "greatest": 4.0}
    assert ours.shared(2).seconds == (0.5, 1.0, 2.0)


def test_the_clock_of_a_cpu_counts_work_and_no_waiting() -> None:
    now = clock(CPU)
    began = now()
    torch.randn(400, 400) @ torch.randn(400, 400)
    assert now() > began


def test_the_shape_is_closed_and_the_rays_cross_the_cube() -> None:
    vertices, faces = bumpy_sphere(3)
    assert len(faces) == 20 * 4**3
    assert is_watertight(Mesh(vertices=vertices, faces=faces))
    assert 0.6 < vertices.norm(dim=1).min() < vertices.norm(dim=1).max() < 1.0
    near, far = near_far(*rays_through(16), -torch.ones(3), torch.ones(3))
    assert (far - near).min() > 0.5


def test_a_peer_that_is_not_there_is_told() -> None:
    ours = speed_peers.hashgrid(4, 4, 1, CPU, target=10.0)
    assert ours.facts == {"samples": 4 * 4 * 4}
    if importlib.util.find_spec("nerfstudio"):
        assert set(ours.works) == {"galatea", "nerfacto"}
    else:
        assert set(ours.works) == {"galatea"}
        assert ours.missing == "nerfstudio: not installed"
    splats = speed_peers.gaussians(50, 16, CPU, target_seconds=1.0)
    assert splats.missing in ("gsplat: not installed", "gsplat: needs device=cuda")


@pytest.mark.skipif(importlib.util.find_spec("pytorch3d") is None, reason="needs pytorch3d")
def test_the_rasterisers_cover_the_same_pixels() -> None:
    both = speed_peers.rasteriser(48, 3, CPU, target=None)
    assert set(both.works) == {"galatea", "pytorch3d"}
    assert both.facts["same_pixels"] > 0.999


@pytest.mark.skipif(importlib.util.find_spec("nerfstudio") is None, reason="needs nerfstudio")
def test_nerfacto_takes_the_same_step() -> None:
    both = speed_peers.hashgrid(4, 4, 1, CPU, target=None)
    both.works["nerfacto"]()()


def test_every_loss_is_composed_with_the_words_that_it_wants() -> None:
    config = Config(task="benchmark_speed", backbone=BackboneConfig(name="tiny"))
    made = _step_settings(config)
    assert list(made) == list(names("distillation"))
    assert all(each.prompt == "a green mug" for each in made.values())
    assert made["csd"].negative_prompt == "a grey ball"
    assert getattr(made["dds"].prior, "source_prompt", "") == "a grey ball"


def test_settings_are_taken_as_typed() -> None:
    made: Any = compose.settings(
        ["experiment=baseline/mvdream", "prompt=a red, shiny 'car'", "distillation=sds", "seed=3"]
    )
    assert (made.experiment, made.prompt, made.seed) == ("baseline/mvdream", "a red, shiny 'car'", 3)
    assert made.distillation.name == "sds"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("backbone") / "my model"
    save_backbone(path, **make_parts(), num_views=4, image_size=64, revision="r1")
    return path


@pytest.mark.parametrize(
    ("loss", "evaluations", "settings"),
    [
        ("asd", 3.0, []),
        ("vsd", 4.0, []),
        ("sds", 2.0, ["representation.colors=latent", "representation.latent_channels=4"]),
        ("sds", 2.0, ["representation=gaussians"]),
    ],
)
def test_steps_are_those_of_a_run_and_evaluations_are_counted(
    model: Path, loss: str, evaluations: float, settings: list[str]
) -> None:
    config: Any = compose.settings(
        ["experiment=baseline/mvdream", "prompt=a cup", "budget=smoke", f"distillation={loss}", *settings]
    )
    begun = Distillation.of(config, load(model))
    with begun.counting() as passes:
        steps = begun.steps(2, passes)
        steps()()
        begun.denoising()()()
        before = begun.state.tensors()
        steps()()
    assert begun.evaluations == evaluations
    assert any(not torch.equal(before[name], tensor) for name, tensor in begun.state.tensors().items())
    for part in begun.parts().values():
        part()()
    steps()()  # what was taken apart has left the run as it was


def test_later_steps_have_their_resolution(model: Path) -> None:
    typed = [
        "experiment=baseline/mvdream",
        "prompt=a cup",
        "budget=smoke",
        "recipe.distill.render_size=[16,16]",
    ]
    config: Any = compose.settings(
        [*typed, "representation.resolutions=[12,20]", "recipe.distill.num_steps=40"]
    )
    begun = Distillation.of(config, load(model))
    steps = begun.steps(2, [])
    for resolution in (12, 12, 20):
        steps()()
        assert begun.state["representation/grid"].shape[0] == resolution


def test_writes_a_table(galatea: Galatea, tmp_path: Path, model: Path) -> None:
    outcome = galatea(
        BENCHMARK, "budget=smoke", "only=[rasteriser,gaussians,distillation]", "losses=[sds,csd]",
        f"backbone={model}", "out=made",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    result = json.loads((tmp_path / "made" / "benchmark.json").read_text())
    assert result["threads"] == 1
    assert result["clock"] == "CPU seconds"
    assert set(result["versions"]) >= {"torch", "warp"}
    forward = result["comparisons"][0]
    assert forward["about"] == "rasteriser, 1,280 faces at 64 x 64, forward"
    assert forward["seconds"]["galatea"]["median"] > 0.0
    assert forward["ratio"] or forward["missing"] == "pytorch3d: not installed"
    sds, csd = result["distillation"]["losses"]
    assert (sds["evaluations"], csd["evaluations"]) == (2.0, 3.0)
    assert (sds["target"], csd["target"]) == (1.6, None)
    assert sds["ratio"]["median"] > 1.0
    parts = result["distillation"]["parts"]
    total = sum(each["median"] for name, each in parts.items() if name != "the whole step")
    assert total == pytest.approx(sds["seconds"]["step"]["median"])
    table = (tmp_path / "made" / "benchmark.md").read_text()
    for part in (
        "# benchmark/speed, 20",
        "- threads: 1",
        "| sds | 2.0 |",
        "gsplat: n",
        "Where a step of sds goes",
    ):
        assert part in table


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ("only=[rasteriser,rays]", "only names 'rays'; there are rasteriser, hashgrid"),
        ("losses=[sdss]", "unknown distillation 'sdss'"),
        ("method=benchmark/tiny", "method is 'benchmark/tiny', which makes no 3D"),
        ("method=text_to_3d/quickstart", "text_to_3d/quickstart with distillation=sds: "),
        ("method_settings=[distillation=sds]", "method_settings holds"),
        ("raster_sizes=[]", "raster_sizes must lie in"),
        ("turns=0", "turns must be at least 1"),
    ],
)
def test_bad_settings_are_named_before_anything_is_written(
    galatea: Galatea, tmp_path: Path, settings: str, part: str
) -> None:
    outcome = galatea(BENCHMARK, "budget=smoke", settings, "out=made")
    assert outcome.status == 2
    assert len(outcome.err) == 1
    assert part in outcome.err[0]
    assert not (tmp_path / "made").exists()


@pytest.mark.slow
def test_a_whole_run_is_told_by_stage(galatea: Galatea, tmp_path: Path, model: Path) -> None:
    outcome = galatea(BENCHMARK, "budget=smoke", "only=[quickstart]", f"backbone={model}", "out=made")
    assert outcome.status == 0, outcome.err
    result = json.loads((tmp_path / "made" / "benchmark.json").read_text())
    assert result["comparisons"] == []
    assert {"reconstruct", "extract", "texture"} <= set(result["quickstart"]["seconds"])
    assert "| reconstruct |" in speed_table.markdown(result)
