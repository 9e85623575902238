"""Components chosen by name: from YAML and command line to built dataclasses, and what is said when that fails.

All but the last tests use two made-up groups, `loss` and `step`, in `tests/experiments/made_up`.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
import sys
import textwrap
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

from experiments import catalog, components, tasks
from experiments.run.inputs import named_paths
from experiments.run.schema import build, fields_of, literal_keys, to_plain, twin
from experiments.run.settings import differences, identity_hash
from tests.experiments.made_up import combining
from tests.experiments.made_up.losses.config import Square, Table
from tests.experiments.made_up.steps.config import Guidance, Mesh, Walk

ROOT = Path(__file__).resolve().parents[2]
MADE_UP = Path(__file__).parent / "made_up" / "configs"
TRY = ("experiment=made_up/combining", "prompt=x")
Run = Callable[..., Any]


@pytest.fixture
def combine(galatea: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `galatea` with the made-up groups and task, and with their configs, or those of `own`."""
    package = "tests.experiments.made_up"
    monkeypatch.setitem(components.GROUPS, "loss", f"{package}.losses.base:Loss")
    monkeypatch.setitem(components.GROUPS, "step", f"{package}.steps.base:Step")
    monkeypatch.setitem(tasks.TASKS, "combining", f"{package}.combining")

    def call(*arguments: str, own: Path = MADE_UP) -> Any:
        return galatea(f"--config-dir={own}", *arguments, own_configs=False)

    return call


def config_of(combine: Run, *arguments: str, **own: Path) -> Any:
    outcome = combine(*TRY, *arguments, "--cfg", "job", **own)
    assert outcome.status == 0, outcome.err
    return yaml.safe_load(outcome.out)


def test_a_run_of_chosen_components(combine: Run, tmp_path: Path) -> None:
    for loss, value in (("square", 2.0), ("steep", 10.0), ("table", 1.0), ("alone", 3.0)):
        outcome = combine(*TRY, f"loss={loss}", f"out={loss}")
        assert outcome.status == 0, outcome.err
        assert (tmp_path / loss / "steps.txt").read_text() == f"walk {value}\nmesh 0\n"
    saved = yaml.safe_load((tmp_path / "table" / "config.yaml").read_text())
    assert saved["recipe"]["walk"]["guidances"]["first"]["loss"] == saved["loss"]
    assert saved["loss"]["name"] == "table"
    assert list(saved["recipe"]) == ["walk", "mesh"]
    again = combine(*TRY, "loss=table", "out=table")
    assert "finished already" in again.err[0]
    other = combine(*TRY, "loss=alone", "out=table")
    assert other.status == 2
    assert "loss.name='table' there and 'alone' here" in other.err[0]


def test_what_is_composed(combine: Run) -> None:
    assert config_of(combine)["loss"] == {"name": "square", "scale": 1.0, "weighting": "flat", "note": ""}
    # Values of a file, of one that builds on another, and of the command line.
    assert config_of(combine, "loss=steep")["loss"]["scale"] == 5.0
    steeper = config_of(combine, "loss=steeper", "loss.note=a, 'b' [c")["loss"]
    assert steeper == {"name": "square", "scale": 50.0, "weighting": "steep", "note": "a, 'b' [c"}
    # What refers to a component sets that.
    assert config_of(combine, "recipe.walk.guidances.first.loss.scale=7")["loss"]["scale"] == 7.0
    # Stages of a recipe, in order; another at the place of one, and one more.
    assert list(config_of(combine, "recipe=meshes")["recipe"]) == ["second", "first"]
    assert config_of(combine, "recipe=meshes")["loss"] is None
    assert config_of(combine, "recipe.mesh.level=5")["recipe"]["mesh"] == {"name": "mesh", "level": 5.0}
    walks = config_of(combine, "step@recipe.mesh=walk", "recipe.mesh.background=red, green")["recipe"]
    assert (list(walks), walks["mesh"]["background"]) == (["walk", "mesh"], "red, green")
    more = config_of(combine, "+step@recipe.last=mesh", "recipe.last.level=3")["recipe"]
    assert (list(more), more["last"]["level"]) == (["walk", "mesh", "last"], 3.0)


def test_budgets_of_a_recipe(combine: Run) -> None:
    by_recipe = "experiment=made_up/by_recipe"
    assert config_of(combine, by_recipe, "budget=smoke")["recipe"]["walk"]["num_steps"] == 1
    assert config_of(combine, by_recipe)["recipe"]["walk"]["num_steps"] == 3
    assert list(config_of(combine, by_recipe, "budget=smoke", "recipe=meshes")["recipe"]) == [
        "second",
        "first",
    ]


SQUARE = "loss square has note, scale, weighting."
HAS = "it has recipe=meshes, step@recipe.second=mesh, step@recipe.first=mesh, budget=cpu"
NAMES = "alone, square, steep, steeper, table"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("loss=ta", f"unknown loss 'ta'. Did you mean table? There are: {NAMES}"),
        ("loss=schema/square", f"unknown loss 'schema/square'. Did you mean square? There are: {NAMES}"),
        ("loss=../loss/square", "unknown loss '../loss/square'"),
        ("loss=table,square", "unknown loss 'table,square'"),
        ("loss=null", "unknown loss 'null'"),
        ("-m loss=table,nope", "unknown loss 'nope'"),
        ("recipe=nope", "unknown recipe 'nope'. There are: "),
        ("step@recipe.mesh=nope", "unknown step 'nope'. There are: mesh, walk"),
        ("loss.points=[1,2]", f"unknown key 'loss.points': {SQUARE} points belongs to loss=table"),
        ("loss.slope=1", f"unknown key 'loss.slope': {SQUARE} slope belongs to loss=alone"),
        ("+loss.slope=1", f"unknown key 'loss.slope': {SQUARE} slope belongs to loss=alone"),
        ("loss.scal=1", f"unknown key 'loss.scal': {SQUARE} Did you mean scale?"),
        (
            "loss=alone loss.weighting=flat",
            "loss alone has slope. weighting belongs to loss=square or loss=steep or loss=steeper",
        ),
        (
            "recipe.mesh.num_steps=5",
            "'recipe.mesh.num_steps': step mesh has level. num_steps belongs to step@recipe.mesh=walk",
        ),
        ("recipe.nope.level=5", "unknown key 'recipe.nope'."),
        ("recipe.nope.level=5", "Keys of recipe: mesh, walk"),
        ("+recipe.nope.level=5", "recipe.nope.level: a step stands there, chosen by name: mesh, walk"),
        (
            "budget=smoke recipe=meshes",
            "smoke.yaml: unknown key 'recipe.mesh.level': there is no step recipe.mesh, only recipe.second, recipe.f",
        ),
        ("loss.name=table", f"'table', and the component is 'square'; choose one with loss=NAME: {NAMES}"),
        ("recipe.mesh.name=walk", "choose one with step@recipe.mesh=NAME: mesh, walk"),
        ("loss.scale=abc", "loss.scale: Value 'abc'"),
        ("loss.scale=-1", "loss: scale is -1.0; it must be above 0"),
        ("loss.scale=nan", "loss.scale is nan; it must be a finite number"),
        ("loss.weighting=x", "loss.weighting is 'x'; it must be one of flat, steep"),
        ("loss=table loss.points=3", "loss.points must be a list of 2 numbers, such as [0.0,1.0], got '3'"),
        ("loss=table loss.points=[1,2,3]", "loss.points has 3 values; it must have 2"),
        ("loss=table loss.files=a", "loss.files is 'a'; it must be a list"),
        # A choice that nothing here can use, and a setting of what was not chosen.
        ("recipe=meshes loss=table", f"this experiment has no 'loss' to choose; {HAS}"),
        (
            "recipe=meshes loss.scale=3",
            "unknown key 'loss.scale': nothing is chosen for loss; this experiment has re",
        ),
        ("-m recipe=downhill,meshes loss=table", f"this experiment has no 'loss' to choose; {HAS}"),
        ("-m recipe=downhill,meshes loss.scale=3", "unknown key 'loss.scale': nothing is chosen for loss;"),
        ("step=mesh", "no 'step' to choose; it has step@recipe.walk=walk, step@recipe.mesh=mesh"),
        ("step@recipe.nope=mesh", "no 'step@recipe.nope' to choose; it has step@recipe.walk=walk, step@"),
        ("step@recipe.walk=mesh recipe.walk.guidances.first.weight=1", "unknown key 'recipe.walk.guidances'"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(
    combine: Run, tmp_path: Path, arguments: str, message: str
) -> None:
    outcome = combine(*TRY, *arguments.split(), "out=made")
    assert outcome.status == 2
    line = outcome.err[-1]
    assert line.startswith("galatea: ")
    assert message in line
    if "-m" not in arguments:  # the first run of a sweep may be a good one
        assert len(outcome.err) == 1
        assert list(tmp_path.iterdir()) == []


def test_a_sweep_over_components(combine: Run, tmp_path: Path) -> None:
    outcome = combine("-m", *TRY, "loss=table,alone", "seed=1,2", "out=all")
    assert outcome.status == 0, outcome.err
    made = [path.read_text() for path in (tmp_path / "all").glob("*/steps.txt")]
    assert sorted(made) == ["walk 1.0\nmesh 0\n"] * 2 + ["walk 3.0\nmesh 0\n"] * 2


def test_help_of_groups(combine: Run) -> None:
    outcome = combine(*TRY, "loss=steep", "--help")
    assert outcome.status == 0
    told = re.sub("  +", "  ", outcome.out)
    for part in (
        "\nloss=steep\n  alone  The distance from zero.\n",
        "\n  downhill  Walk along a loss, then mesh.\n",
        "\nstep@recipe.walk=walk  step@recipe.mesh=mesh\n  mesh  Where",
        "\n  1 walk  Walk downhill along the losses of all guidances.\n  2 mesh  Where a level is crossed.\n",
        "\n  loss.scale=5.0\n",
        "\n  recipe.walk.guidances.first.loss=${loss}\n",
    ):
        assert part in told
    assert "loss.name" not in told
    told = re.sub("  +", "  ", combine("--help").out)
    assert "\n  loss=NAME  alone, square, steep, steeper, table\n" in told
    assert "\n  made_up/combining  Steps, one after the other.\n" in told


def test_identity_counts_components_and_the_order_of_stages() -> None:
    recipe = {"a": {"name": "walk", "x": 1}, "b": {"name": "mesh", "x": 2}}
    turned = {key: recipe[key] for key in ("b", "a")}
    assert identity_hash({"recipe": recipe}) != identity_hash({"recipe": turned})
    assert differences({"recipe": recipe}, {"recipe": turned}) == ["recipe"]
    assert differences({"recipe": recipe}, {"recipe": dict(recipe)}) == []
    # Elsewhere the order of keys says nothing.
    plain = {"x": {"p": {"q": 1}, "r": {"s": 2}}}
    assert identity_hash(plain) == identity_hash({"x": dict(reversed(plain["x"].items()))})


def test_text_of_all_components_is_taken_as_typed(combine: Run) -> None:
    with components.search(str(MADE_UP)):
        keys = literal_keys(combining.Config)
    assert keys == {
        "out": False, "prompt": False, "loss.note": False, "loss.files": True, "recipe.*.background": False,
        "recipe.*.guidances.*.loss.note": False, "recipe.*.guidances.*.loss.files": True,
    }  # fmt: skip


def test_paths_in_components_are_inputs() -> None:
    step = Walk(guidances={"first": Guidance(loss=Table(files=("a", "b")))})
    config = combining.Config(task="combining", prompt="x", recipe={"walk": step})
    assert named_paths(config) == {
        "recipe.walk.guidances.first.loss.files[0]": "a", "recipe.walk.guidances.first.loss.files[1]": "b",
    }  # fmt: skip


def test_a_config_that_was_saved_is_built_again(combine: Run) -> None:
    step = Walk(guidances={"first": Guidance(loss=Table(points=(2.0, 3.0)), weight=2.0)})
    config = combining.Config(
        task="combining", prompt="x", loss=Square(scale=3.0), recipe={"b": step, "a": Mesh()}
    )
    with components.search(str(MADE_UP)):
        plain = to_plain(config)
        assert build(combining.Config, DictConfig(plain)) == config
        shown = config_of(combine, "loss=steep") | {"experiment": ""}  # with what refers to the loss
        assert build(combining.Config, DictConfig(shown)).recipe["walk"] == Walk(
            guidances={"first": Guidance(loss=Square(scale=5.0, weighting="steep"), weight=0.5)}
        )
        for wrong, message in (
            ({"loss": {"name": "nope"}}, "loss.name is 'nope'; it must be one of "),
            ({"loss": {"scale": 1.0}}, "loss.name is None; it must be one of "),
            ({"loss": {}}, "loss.name is None"),
            ({"recipe": {"a": {"name": "mesh"}, "b": {"name": "square"}}}, "recipe.b.name is 'square'"),
        ):
            with pytest.raises(ValueError, match=message):
                build(combining.Config, DictConfig({**plain, **wrong}))


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A user's tree: the made-up configs, to which a test adds."""
    shutil.copytree(MADE_UP, tmp_path / "own")
    return tmp_path / "own"


MINE = """
from dataclasses import dataclass
from typing import Literal
from tests.experiments.made_up.losses.base import Loss

@dataclass(frozen=True, kw_only=True)
class Mine(Loss):
    name: Literal["mine"] = "mine"
    power: int = 3

    def __call__(self, x):
        return x**self.power
"""


def test_a_file_beside_its_yaml(combine: Run, own: Path, tmp_path: Path) -> None:
    (own / "loss" / "mine.py").write_text(MINE)
    (own / "loss" / "cubic.yaml").write_text("# Cubes.\ndefaults: [schema/mine@_here_]\n")
    (own / "loss" / "stray.py").write_text("raise RuntimeError('no file names this one')\n")
    outcome = combine(*TRY, "loss=cubic", "loss.power=4", "out=made", own=own)
    assert outcome.status == 0, outcome.err
    assert (tmp_path / "made" / "steps.txt").read_text() == "walk 8.0\nmesh 0\n"
    assert "    cubic    Cubes.\n" in combine(*TRY, "--help", own=own).out
    # Afterwards nothing of it is left, and another tree has its own.
    assert "unknown loss 'cubic'" in combine(*TRY, "loss=cubic").err[0]
    (own / "loss" / "mine.py").write_text(MINE.replace("x**self.power", "-x"))
    shutil.move(own, tmp_path / "other")
    outcome = combine(*TRY, "loss=cubic", "out=again", own=tmp_path / "other")
    assert outcome.status == 0, outcome.err
    assert (tmp_path / "again" / "steps.txt").read_text() == "walk -1.0\nmesh 0\n"


@pytest.mark.parametrize(
    ("files", "parts"),
    [
        ({"mine.yaml": "scale: 2"}, ["loss/mine.yaml names no component", "schema/NAME@_here_"]),
        ({"mine.yaml": "- a"}, ["loss/mine.yaml is no config"]),
        ({"mine.yaml": "x: ["}, ["loss/mine.yaml, line 1"]),
        ({"mine.yaml": "defaults: [mine]"}, ["loss/mine.yaml names no component"]),
        (
            {"mine.yaml": "defaults: [schema/os.path@_here_]", "os.py": MINE},
            ["loss/mine.yaml names no component"],
        ),
        (
            {"mine.yaml": "defaults: [schema/mine@_here_]"},
            ["loss/mine.yaml", "'mine'", "loss/mine.py", "Literal['mine']"],
        ),
        (
            {"mine.yaml": "defaults: [schema/mine@_here_]", "mine.py": MINE.replace("@", "#")},
            ["loss/mine.yaml names the component 'mine'", "holds no frozen dataclass that derives from Loss"],
        ),
        (
            {"mine.yaml": "defaults: [schema/mine@_here_]", "mine.py": "import nope_nope"},
            ["loss/mine.py cannot be imported: ModuleNotFoundError"],
        ),
        (
            {"mine.yaml": "defaults: [schema/mine@_here_]", "mine.py": "def"},
            ["loss/mine.py cannot be imported: SyntaxError"],
        ),
        (
            {"mine.yaml": "defaults: [schema/square@_here_]", "square.py": MINE.replace("mine", "square")},
            ["loss/square.py has a name that is taken"],
        ),
        (
            {"mine.yaml": "defaults: [schema/base@_here_]", "base.py": MINE.replace("mine", "base")},
            ["loss/base.py has a name that is taken"],
        ),
    ],
)
def test_a_component_that_cannot_be_had_is_named(
    combine: Run, own: Path, tmp_path: Path, files: dict[str, str], parts: list[str]
) -> None:
    for name, text in files.items():
        (own / "loss" / name).write_text(text)
    outcome = combine(*TRY, "out=made", own=own)
    assert outcome.status == 2
    (line,) = outcome.err
    for part in parts:
        assert part in line
    assert not (tmp_path / "made").exists()


# What follows is about the shipped groups, those that have names yet.
SHIPPED = [group for group in components.GROUPS if catalog.options(group)]


@pytest.mark.parametrize("group", SHIPPED)
def test_every_shipped_name_has_a_line_of_help(group: str) -> None:
    assert all(components.names(group).values())
    assert set(components.schemas(group).values()) == components.classes(group).keys()


def filled(annotation: Any, plain: Any) -> Any:
    """`plain` with a component wherever one must be chosen, and a word for whatever else must be given."""
    if components.is_choice(annotation):
        annotation = components.alternatives(annotation)[0]
    if not dataclasses.is_dataclass(annotation):
        return "x" if plain == "???" else plain
    hints = typing.get_type_hints(annotation)
    made = OmegaConf.to_container(OmegaConf.structured(twin(typing.cast(type, annotation))))
    if plain != "???":
        made |= plain  # type: ignore[operator]
    return {key: filled(hints[str(key)], value) for key, value in made.items()}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("group", "name"), [(group, name) for group in SHIPPED for name in components.schemas(group)]
)
def test_every_shipped_component_is_built_and_back(group: str, name: str) -> None:
    cls = components.classes(group)[components.schemas(group)[name]]
    values = catalog.read_yaml(catalog.CONFIG_ROOT / group / f"{name}.yaml")
    plain = filled(cls, {key: value for key, value in values.items() if key != "defaults"})
    base = next(each for each in cls.__mro__ if components.is_choice(each))
    holder = dataclasses.make_dataclass("Holder", [("it", base)], frozen=True, kw_only=True)
    try:
        built = build(holder, DictConfig({"it": plain}))
    except ValueError as error:
        if "needs the package" in str(error):
            pytest.skip(str(error))
        raise
    assert type(built.it) is cls
    assert build(holder, DictConfig(to_plain(built))) == built
    kinds = {key: listed for key, listed in literal_keys(holder).items() if key.count(".") == 1}
    for other in components.classes(group).values():  # a key is text in all of a group, or in none
        for key, annotation in fields_of(other, "it."):
            if key in kinds and "*" not in key:
                assert "Annotated" in str(annotation), f"{other.__name__}: {key} is text in another {group}"


EXPERIMENT = ("experiment=baseline/mvdream", "prompt=x")


def said_in_contributing(path: str) -> str:
    """The indented block behind "`path`:" in CONTRIBUTING.md."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition(f"`{path}`:\n\n")[2]
    block = re.match(r"(?:(?: {4}.*)?\n)+", text)
    assert block, path
    return textwrap.dedent(block[0]).strip() + "\n"


def test_contributing_is_followed_to_the_letter(combine: Run, tmp_path: Path) -> None:
    own = tmp_path / "own"
    for path in (
        "gen3d/distillation/mine.py",
        "configs/distillation/mine.yaml",
        "configs/recipe/mine.yaml",
    ):
        folder, name = path.split("/")[1:]
        (own / folder).mkdir(parents=True, exist_ok=True)
        (own / folder / name).write_text(said_in_contributing(path))

    def shown(*arguments: str) -> Any:
        outcome = combine(*EXPERIMENT, *arguments, "--cfg", "job", own=own)
        assert outcome.status == 0, outcome.err
        return yaml.safe_load(outcome.out)

    assert shown("distillation=mine")["distillation"] == {"name": "mine", "guidance_scale": 10.0}
    chosen = shown("distillation=mine", "distillation.guidance_scale=50")["distillation"]
    assert chosen["guidance_scale"] == 50.0
    made = shown("recipe=mine")
    assert made["distillation"]["name"] == "mine"
    assert [stage["name"] for stage in made["recipe"].values()] == ["distill", "extract"]
    assert next(iter(made["recipe"].values()))["num_steps"] == 200
    assert "The difference of the noises, by its variance." in combine(*EXPERIMENT, "--help", own=own).out
    for setting, message in (
        ("rescale=1", "unknown key 'distillation.rescale': distillation mine has guidance_scale."),
        ("guidance_scale=-1", "distillation: guidance_scale must lie in 0..1000, got -1"),
    ):
        outcome = combine(*EXPERIMENT, "recipe=mine", f"distillation.{setting}", "out=made", own=own)
        assert outcome.status == 2
        assert message in outcome.err[-1]


def test_contributing_loads_no_torch(subprocess_environment: dict[str, str]) -> None:
    code = (
        f"import sys\n{said_in_contributing('gen3d/distillation/mine.py')}\nassert 'torch' not in sys.modules"
    )
    code = code.replace("from __future__ import annotations", "", 1)
    subprocess.run([sys.executable, "-c", "from __future__ import annotations\n" + code], env=subprocess_environment,
                   check=True, timeout=120)  # fmt: skip
