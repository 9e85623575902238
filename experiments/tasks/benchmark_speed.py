"""What takes how long: our pieces beside those of others, a step of every loss beside the bare denoiser, a whole run.

Both sides of a ratio are measured in one process and take turns, so that a busy machine disturbs both alike. A peer
that is not installed is named as missing; the rest is measured all the same.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import torch

from diffusion.backbone import Backbone
from experiments import catalog, compose
from experiments.benchmark import circumstances, making, speed_peers, speed_table
from experiments.benchmark.assets import Job, forget_assets
from experiments.benchmark.cases import Case
from experiments.benchmark.speed_peers import OURS, Comparison
from experiments.benchmark.speed_steps import BARE, STEP, Distillation
from experiments.benchmark.timing import Timing, clock, side_by_side
from experiments.components import names, unknown_name
from experiments.errors import UserError
from experiments.run.backbones import BackboneConfig, load_into
from experiments.run.files import write_json, write_text
from experiments.run.run import Run
from experiments.tasks.configs import text_to_3d
from experiments.tasks.configs.benchmark_methods import Config as Methods
from experiments.tasks.configs.benchmark_speed import Config

_PACKAGES = ("torch", "warp", "pytorch3d", "nerfstudio", "gsplat")
# How much faster than its peer each should be, and in how much time it should be done, on a CPU.
_RASTER_TARGETS, _HASHGRID_TARGET, _SPLAT_SECONDS, _STEP_TARGET = {512: 500.0, 128: 100.0}, 10.0, 1.0, 1.6
_SHALLOW, _DEEP = 1, 4  # hidden layers: ours, and as many layers as nerfacto's two networks have together


def validate(config: Config) -> None:
    """Find names that there are not, and losses whose settings are refused, before anything is written."""
    if config.measures("distillation"):
        _step_settings(config)


def run(config: Config, run: Run) -> None:
    """Measure, and write benchmark.json and benchmark.md."""
    load = circumstances.load_average()
    if config.overwrite:
        forget_assets(run.folder / "quickstart")
    backbone = load_into(run, config.backbone)
    compared = _compare(config, run)
    steps = _steps(config, run, backbone) if config.measures("distillation") else None
    whole = _quickstart(config, run) if config.measures("quickstart") else None
    plain = Config(task=config.task, backbone=BackboneConfig(name="tiny"))
    with run.phase("write"):
        result = {
            **circumstances.head(config, plain, run, load),
            "threads": torch.get_num_threads(),
            "versions": _versions(),
            "clock": "CPU seconds" if run.device.type == "cpu" else "seconds",
            "comparisons": compared,
            "distillation": steps,
            "quickstart": whole,
        }
        run.metrics["times_faster"] = {
            f"{row['about']}, {row['peer']}": row["ratio"]["median"] for row in compared if row["ratio"]
        }
        if steps is not None:
            run.metrics["step_over_denoiser"] = {
                row["loss"]: row["ratio"]["median"] for row in steps["losses"]
            }
        write_json(run.artefact("benchmark.json", kind="table"), result)
        write_text(run.artefact("benchmark.md", kind="table"), speed_table.markdown(result))
    run.say(speed_table.summary(result))


def _compare(config: Config, run: Run) -> list[dict[str, Any]]:
    """A row for each comparison with a peer."""
    rows = []
    plans = list(_comparisons(config, run.device))
    with run.phase("compare", len(plans)):
        for done, plan in enumerate(plans, start=1):
            one = plan()  # only now: each holds memory of its own
            timings = side_by_side(
                one.works,
                clock(run.device),
                turns=config.turns,
                turn_seconds=config.turn_seconds,
                limit_seconds=config.limit_seconds,
            )
            theirs = timings.get(one.peer)
            rows.append(
                {
                    "about": one.about,
                    "peer": one.peer,
                    "missing": one.missing,
                    "seconds": {name: _seconds(each) for name, each in timings.items()},
                    "ratio": theirs.over(timings[OURS]) if theirs is not None else None,
                    "target": one.target,
                    "target_seconds": one.target_seconds,
                    "facts": one.facts,
                }
            )
            run.display.update(done, {})
    return rows


def _comparisons(config: Config, device: torch.device) -> Iterator[Callable[[], Comparison]]:
    on_cpu = device.type == "cpu"
    if config.measures("rasteriser"):
        subdivisions = config.raster_subdivisions
        for size in config.raster_sizes:
            target = _RASTER_TARGETS.get(size) if on_cpu else None
            yield partial(speed_peers.rasteriser, size, subdivisions, device, target=target)
            yield partial(speed_peers.rasteriser_gradient, size, subdivisions, device)
    if config.measures("hashgrid"):
        grid = partial(speed_peers.hashgrid, config.ray_size, config.num_samples)
        yield partial(grid, _SHALLOW, device, target=_HASHGRID_TARGET if on_cpu else None)
        yield partial(grid, _DEEP, device, target=None)
        yield partial(grid, _SHALLOW, device, target=None, skipping=True)
    if config.measures("gaussians"):
        count, size = config.num_splats, config.splat_size
        yield partial(
            speed_peers.gaussians, count, size, device, target_seconds=_SPLAT_SECONDS if on_cpu else None
        )


def _steps(config: Config, run: Run, backbone: Backbone) -> dict[str, Any]:
    """A row for each loss, and the parts of one loss's step."""
    settings, now, rows, parts = _step_settings(config), clock(run.device), [], None
    with run.phase("steps", len(settings)):
        for done, (name, one) in enumerate(settings.items(), start=1):
            begun = Distillation.of(one, backbone)
            with begun.counting() as passes:
                works = {STEP: begun.steps(config.step_turns, passes), BARE: begun.denoising()}
                timings = side_by_side(works, now, turns=config.step_turns)
            shared = {part: each.shared(begun.steps_a_go) for part, each in timings.items()}
            cheap = begun.evaluations <= 2.0 and not getattr(one.distillation, "looks_at_images", False)
            rows.append(
                {
                    "loss": name,
                    "evaluations": begun.evaluations,
                    "seconds": {part: _seconds(each) for part, each in shared.items()},
                    "ratio": shared[STEP].over(shared[BARE]),
                    "target": _STEP_TARGET if cheap and run.device.type == "cpu" else None,
                }
            )
            if name == config.taken_apart:
                took = side_by_side(begun.parts(), now, turns=config.turns, turn_seconds=config.turn_seconds)
                parts = {part: _seconds(each) for part, each in took.items()}
                rest = shared[STEP].median - sum(each.median for each in took.values())
                parts["all else"] = {"median": rest}
                parts["the whole step"] = _seconds(shared[STEP])
            run.display.update(done, {name: rows[-1]["ratio"]["median"]})
    return {
        "method": config.method,
        "budget": config.asset_budget,
        "losses": rows,
        "taken_apart": config.taken_apart if parts else None,
        "parts": parts,
    }


def _step_settings(config: Config) -> dict[str, text_to_3d.Config]:
    """Loss -> the settings of a run with it, and with the words that it wants (those of benchmark/losses)."""
    for name in (*config.losses, config.taken_apart):
        error = unknown_name("distillation", name)
        if error is not None:
            raise error
    if catalog.task_of(config.method) != "text_to_3d":
        raise UserError(f"method is {config.method!r}, which makes no 3D; give one such as baseline/mvdream")
    methods = cast(Methods, compose.settings(["experiment=benchmark/losses"])).methods
    found = {}
    for name in config.losses or names("distillation"):
        own = methods[name].settings if name in methods else (f"distillation={name}",)
        typed = [
            f"experiment={config.method}",
            f"prompt={config.prompt}",
            f"budget={config.asset_budget}",
            f"seed={config.seed}",
            *config.method_settings,
            *own,
        ]
        try:
            found[name] = cast(text_to_3d.Config, compose.settings(typed))
        except (UserError, ValueError) as error:
            raise UserError(f"{config.method} with {' '.join(own)}: {error}") from None
    return found


def _quickstart(config: Config, run: Run) -> dict[str, Any]:
    """Seconds of each part of a whole run, in a process of its own."""
    settings = (
        "experiment=text_to_3d/quickstart",
        f"budget={config.asset_budget}",
        *config.backbone.typed(),
        f"seed={config.seed}",
        f"device={config.device}",
        f"threads={torch.get_num_threads()}",
    )
    case = Case(index=0, caption=config.prompt, group="things")
    job = Job(case=case, out=run.folder / "quickstart", settings=settings)
    (asset,) = making.make(run, [job], at_once=1, name="quickstart")
    assert asset.report is not None
    run.generated_by_ai = bool(asset.report["generated_by_ai"])
    return {
        "budget": config.asset_budget,
        "prompt": config.prompt,
        "seconds": asset.report["seconds"],
        "wall_seconds": asset.wall_seconds,
        "peak_memory_mb": asset.report.get("peak_memory_mb"),
    }


def _seconds(timing: Timing) -> dict[str, float]:
    return {
        "median": timing.median,
        "least": min(timing.seconds),
        "greatest": max(timing.seconds),
        "turns": len(timing.seconds),
    }


def _versions() -> dict[str, str]:
    """Of the packages that take part, as far as they are installed."""
    known = importlib.metadata.packages_distributions()
    return {name: importlib.metadata.version(known[name][0]) for name in _PACKAGES if name in known}
