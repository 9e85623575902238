"""Whatever is typed as a prompt or a path arrives as typed, and is never read as anything else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_module
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from experiments.arguments import parse, quote, register_resolver
from experiments.errors import UserError
from experiments.run.folder import to_yaml

# What a shell can hand over: any text but NUL. Python decodes what is no UTF-8 to lone surrogates, tested apart.
KEYS = {"prompt": False, "out": False, "files": True}
TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=60)
NASTY = st.text(alphabet="\\'\"${}[](),:=~+-/.@ \n\t%#&!?*<>|abx", max_size=25)
PROMPTS = [
    "a red, shiny car",
    'a "quoted" car',
    "a 'quoted' car",
    "'quoted'",
    '"quoted"',
    "it's",
    "\U0001f344 mushroom \U0001f469\u200d\U0001f680",
    "two\nlines\r\nand\ttabs",
    "a=b==c",
    "../../etc/passwd",
    "${oc.env:HOME}",
    "\\${x}",
    "\\\\${x}",
    "${x",
    "$x ${",
    "a\\",
    "\\'",
    "\\\\'",
    "[1, 2]",
    "{a: b}",
    "(x)",
    "null",
    "true",
    "1e3",
    "???",
    " leading and trailing ",
    "choice(a,b)",
    "~out",
    "--help",
    "# no comment",
    "; rm -rf /",
    "\u2028line separator\x85\x1b[31m",
]


@pytest.fixture(scope="module")
def composed() -> Callable[..., Any]:
    """composed(argument, ...) -> config through Hydra, as the application composes it."""
    ConfigStore.instance().store(name="text_arguments", node={"prompt": "", "out": None, "files": []})

    def call(*argv: str) -> Any:
        with initialize_config_module("configs", version_base="1.3"):
            return compose("text_arguments", overrides=parse(list(argv)).overrides(KEYS))

    return call


@pytest.fixture(scope="module")
def swept() -> Callable[..., list[Any]]:
    """swept(argument, ...) -> the config of every run of a sweep, each as Hydra's own sweeper composes it."""
    ConfigStore.instance().store(name="text_arguments", node={"prompt": "", "out": None, "files": []})
    register_resolver()

    def call(*argv: str) -> list[Any]:
        overrides = OverridesParser.create().parse_overrides(parse(["-m", *argv]).overrides(KEYS))
        with initialize_config_module("configs", version_base="1.3"):
            return [
                OmegaConf.to_container(compose("text_arguments", overrides=run), resolve=True)
                for run in BasicSweeper.split_arguments(overrides, None)[0]
            ]

    return call


def listed(text: str, mark: str) -> str:
    """`text` as the docstring of `experiments.arguments` says that an element of a list is written."""
    escaped = ""
    backslashes = 0
    for character in text:
        if character == mark:
            escaped += "\\" * (backslashes + 1)
        backslashes = backslashes + 1 if character == "\\" else 0
        escaped += character
    return mark + escaped + "\\" * backslashes + mark


@pytest.mark.parametrize("prompt", PROMPTS)
def test_known_troublemakers(composed: Callable[..., Any], prompt: str) -> None:
    config = composed(f"prompt={prompt}", f"out={prompt}")
    assert OmegaConf.to_container(config, resolve=True) == {"prompt": prompt, "out": prompt, "files": []}


@given(prompt=st.one_of(TEXT, NASTY))
@example(prompt="\\\\${'\\")
def test_any_text_survives(composed: Callable[..., Any], prompt: str) -> None:
    config = composed(f"prompt={prompt}")
    assert OmegaConf.to_container(config, resolve=True)["prompt"] == prompt  # type: ignore[call-overload]


@settings(max_examples=25)
@given(texts=st.lists(st.one_of(TEXT, NASTY), min_size=1, max_size=3), mark=st.sampled_from("'\""))
@example(texts=PROMPTS, mark="'")
@example(texts=["a wizard's hat", "a cat!", "\\${x}", "\u7ea2 \u00e9 #1", ""], mark='"')
def test_any_text_survives_a_sweep(swept: Callable[..., Any], texts: list[str], mark: str) -> None:
    elements = ",".join(listed(text, mark) for text in texts)
    assert [run["prompt"] for run in swept(f"prompt=choice({elements})")] == texts


def test_a_shuffled_sweep_has_the_same_texts(swept: Callable[..., Any]) -> None:
    texts = ["a, b", "it's", "${x}", ""]
    elements = ",".join(listed(text, '"') for text in texts)
    assert sorted(run["out"] for run in swept(f"out=shuffle({elements})")) == sorted(texts)


@settings(max_examples=25)
@given(texts=st.lists(st.one_of(TEXT, NASTY), max_size=4), mark=st.sampled_from("'\""))
def test_any_text_survives_in_a_list(composed: Callable[..., Any], texts: list[str], mark: str) -> None:
    config = composed(f"files=[{', '.join(listed(text, mark) for text in texts)}]")
    assert OmegaConf.to_container(config, resolve=True)["files"] == texts  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("typed", "texts"),
    [
        ("""choice("a wizard's hat","a cat")""", ["a wizard's hat", "a cat"]),
        ("choice(a wizard's hat, a cat )", ["a wizard's hat", "a cat"]),
        (" choice ( (a) [b] {c: d}, x=1) ", ["(a) [b] {c: d}", "x=1"]),
        (r"""choice("say \"hi\", now", 'C:\new\\')""", ['say "hi", now', "C:\\new\\"]),
        ("choice(a)", ["a"]),
        ("shuffle(choice('a'))", ["a"]),
        ("choice", ["choice"]),
        ("x choice(a,b)", ["x choice(a,b)"]),
    ],
)
def test_how_a_sweep_is_written(swept: Callable[..., Any], typed: str, texts: list[str]) -> None:
    assert [run["prompt"] for run in swept(f"prompt={typed}")] == texts


@pytest.mark.parametrize(
    ("typed", "part"),
    [
        ("choice('a wizard's hat','a cat')", "the quote before \"a wizard's"),
        ('choice("a, b)', "the quote before"),
        ("choice('tis fine, a cat)", "no other to close it"),
        ("choice(a,,b)", "is empty"),
        ("choice()", "is empty"),
    ],
)
def test_a_sweep_that_cannot_be_read(typed: str, part: str) -> None:
    with pytest.raises(UserError, match=part):
        parse(["-m", f"prompt={typed}"]).overrides(KEYS)


def test_a_list_of_files_is_a_list() -> None:
    with pytest.raises(UserError, match=r"files is 'me\.png'; it must be a list"):
        parse(["files=me.png"]).overrides(KEYS)


@given(text=st.one_of(TEXT, NASTY))
def test_any_text_survives_the_saved_config(text: str) -> None:
    assert yaml.safe_load(to_yaml({"prompt": text})) == {"prompt": text}


def test_quoting_is_one_hydra_value() -> None:
    assert quote("a, b") == "'a, b'"
    assert quote("it's") == "'it\\'s'"
    assert quote("a\\") == "'a\\\\'"
    assert quote("${x}") == "'\\${x}'"


@pytest.mark.parametrize("prompt", ["a red, shiny car", "${oc.env:HOME}", "../x\n'\"=", "\U0001f344", "null"])
def test_through_the_whole_program(galatea: Callable[..., Any], tmp_path: Path, prompt: str) -> None:
    outcome = galatea("experiment=test/counting", f"prompt={prompt}", "budget=smoke", "out=made")
    assert outcome.status == 0
    assert yaml.safe_load((tmp_path / "made" / "config.yaml").read_text(encoding="utf-8"))["prompt"] == prompt
    page = (tmp_path / "made" / "report.html").read_text(encoding="utf-8")
    assert "<title>" in page


def test_a_prompt_cannot_inject_html(galatea: Callable[..., Any], tmp_path: Path) -> None:
    prompt = "</title></pre><script>alert(1)</script><img src=x onerror=alert(2)>"
    assert galatea("experiment=test/counting", f"prompt={prompt}", "budget=smoke", "out=made").status == 0
    page = (tmp_path / "made" / "report.html").read_text(encoding="utf-8")
    assert "<script>" not in page
    assert "<img" not in page
    assert "&lt;script&gt;" in page


def test_text_that_is_no_utf8_is_refused() -> None:
    with pytest.raises(UserError, match="prompt is no valid UTF-8"):
        parse(["prompt=a \udcff b"]).overrides(KEYS)


def test_a_backbone_folder_is_a_path() -> None:
    parsed = parse(["backbone=/models/my, 'tiny' ${x}"])
    assert parsed.overrides(KEYS) == ["backbone=folder", "backbone.name='/models/my, \\'tiny\\' \\${x}'"]
    assert parse(["backbone=tiny"]).overrides(KEYS) == ["backbone=tiny"]
    assert parse(["-m", "backbone=choice(tiny,sd15)"]).overrides(KEYS) == ["backbone=choice(tiny,sd15)"]
    assert parse(["-m", "backbone=choice(tiny,./a)"]).overrides(KEYS)[0] == "backbone=folder"


def test_flags_and_values_are_told_apart() -> None:
    parsed = parse(["-m", "experiment=a/b", "--cfg", "job", "seed=1,2", "prompt=--cfg"])
    assert parsed.multirun
    assert parsed.argv(KEYS) == ["-m", "--cfg", "job", "--", "experiment=a/b", "seed=1,2", "prompt='--cfg'"]
    with pytest.raises(UserError, match="--cfg needs a value"):
        parse(["--cfg"])


def test_no_config_names_code() -> None:
    from experiments.catalog import CONFIG_ROOT

    for path in CONFIG_ROOT.rglob("*.yaml"):
        assert "_target_" not in path.read_text(encoding="utf-8"), path
