"""provenance.json, report.json and report.html, field by field."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.run import provenance
from experiments.run.backbones import BackboneConfig, announce_slowness
from experiments.run.files import write_json
from experiments.run.images import grid, read_row, save_png
from experiments.run.inputs import without_places
from experiments.run.report import curve_svg, page, read_log
from experiments.run.run import Run
from files.atomic import atomic_path
from tests.experiments.counting import Config

COUNT = "experiment=test/counting"


@pytest.fixture
def made(galatea: Callable[..., Any], tmp_path: Path) -> Path:
    arguments = (
        COUNT,
        "prompt=a r\u00f6d b\u00e5t",
        "seed=7",
        "budget=smoke",
        "threads=1",
        "checkpoint_every=2",
        "out=made",
    )
    assert galatea(*arguments).status == 0
    return tmp_path / "made"


def test_provenance_field_by_field(made: Path) -> None:
    record = json.loads((made / "provenance.json").read_text(encoding="utf-8"))
    assert record["generator"]["name"] == "galatea"
    assert record["generator"].keys() == {"name", "version", "commit", "modified"}
    assert record["generator"]["commit"] == provenance.code_commit()["commit"]
    assert record["generated_by_ai"] is False  # counting takes no model
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", record["created"])
    assert (record["task"], record["experiment"], record["seed"]) == ("counting", "test/counting", 7)
    assert re.fullmatch(r"[0-9a-f]{10}", record["config_hash"])
    prompt = "a r\u00f6d b\u00e5t"
    assert record["inputs"] == {
        "prompt": {"text": prompt, "sha256": hashlib.sha256(prompt.encode()).hexdigest()}
    }
    assert record["device"]["type"] == "cpu"
    assert record["device"]["threads"] == 1
    assert record["determinism"] == {"seed": 7, "threads": 1, "deterministic_algorithms": True}
    assert record["libraries"]["torch"] == torch.__version__.partition("+")[0] or record["libraries"]["torch"]
    content = (made / "x.safetensors").read_bytes()
    assert record["artefacts"] == [
        {
            "file": "x.safetensors",
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "kind": "weights",
        }
    ]


def test_report_holds_the_provenance_and_the_numbers(made: Path) -> None:
    record = json.loads((made / "provenance.json").read_text(encoding="utf-8"))
    report = json.loads((made / "report.json").read_text(encoding="utf-8"))
    assert {key: report[key] for key in record} == record
    assert report["seconds"]["fit"] > 0
    assert report["seconds_total"] == pytest.approx(sum(report["seconds"].values()), abs=2e-3)
    assert 50 < report["peak_memory_mb"] < 1e5
    assert report["metrics"].keys() == {"error"}
    assert report["notes"] == []
    assert str(made) not in (made / "report.json").read_text(encoding="utf-8"), (
        "a private path got into the report"
    )


def test_seconds_and_log_go_on_after_a_resume(galatea: Callable[..., Any], tmp_path: Path) -> None:
    arguments = (COUNT, "prompt=x", "pause=0.01", "num_steps=12", "checkpoint_every=5", "out=made")
    assert galatea(*arguments, "fail_at=9").status == 130
    config = tmp_path / "made" / "config.yaml"
    config.write_text(config.read_text().replace("fail_at: 9", "fail_at: null"))
    assert galatea(*arguments).status == 0
    assert [record["step"] for record in read_log(tmp_path / "made" / "metrics.jsonl")] == list(range(1, 13))
    report = json.loads((tmp_path / "made" / "report.json").read_text())
    assert report["seconds"]["fit"] > 0.11
    assert report["notes"] == ["continued from step 5"]


@pytest.mark.parametrize(
    ("generated", "said"),
    [(True, "Made by a generative model."), (False, "No generative model took part.")],
)
def test_the_page_says_whether_a_model_took_part(made: Path, generated: bool, said: str) -> None:
    assert "No generative model took part." in (made / "report.html").read_text(encoding="utf-8")
    report = json.loads((made / "report.json").read_text(encoding="utf-8"))
    text = page(made, {"task": "t", "budget": "cpu"}, {**report, "generated_by_ai": generated})
    assert text.count(said) == text.lower().count("generative model") == 1


def test_media_tags_name_a_model_only_where_one_took_part() -> None:
    backbone = {"name": "tiny", "revision": "0.1"}
    made = provenance.media_tags(generated_by_ai=True, seed=3, backbone=backbone, prompt="a cup")["comment"]
    assert re.fullmatch(
        r"Made by a generative model: Galatea \S+, backbone tiny 0\.1, seed 3, prompt: a cup", made
    )
    # A backbone may be loaded for a measure alone.
    true = provenance.media_tags(generated_by_ai=False, seed=3, backbone=backbone)["comment"]
    assert re.fullmatch(r"Made by Galatea \S+, without a generative model, seed 3", true)


def test_page_is_self_contained(made: Path) -> None:
    (made / "mesh.glb").write_bytes(b"glTF")
    save_png(torch.rand(3, 4, 4), made / "view.png")
    report = json.loads((made / "report.json").read_text(encoding="utf-8"))
    report["artefacts"] += [
        {"file": "mesh.glb", "kind": "mesh", "bytes": 4, "sha256": ""},
        {"file": "view.png", "kind": "image", "bytes": 4, "sha256": ""},
    ]
    text = page(made, {"task": "t", "budget": "cpu"}, report)
    assert '<model-viewer src="data:model/gltf-binary;base64,Z2xURg=="' in text
    assert 'customElements.define("model-viewer"' in text
    assert "data:image/png;base64," in text
    assert text.count("</script>") == 1
    assert "<polyline" in text
    outside_script = text.partition("<script>")[0]
    assert not re.search(r"(src|href)=[\"']?(https?:|/|\.)", outside_script)


def test_what_is_too_large_for_the_page_is_linked(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.run.report.MAX_EMBEDDED_BYTES", 10)
    report = json.loads((made / "report.json").read_text(encoding="utf-8"))
    for name, kind in (("mesh.glb", "mesh"), ("turn #1.mp4", "video"), ("view.png", "image")):
        (made / name).write_bytes(b"x" * 11)
        report["artefacts"].append({"file": name, "kind": kind, "bytes": 11, "sha256": ""})
    text = page(made, {"task": "t", "budget": "cpu"}, report)
    for link in ("mesh.glb", "turn%20%231.mp4", "view.png"):
        assert f'<a href="{link}">' in text
    assert "base64" not in text.partition("<h2>")[0]
    assert "<script>" not in text, "there is no mesh to turn"


def test_no_page_or_note_says_where_files_lie(galatea: Callable[..., Any], tmp_path: Path) -> None:
    assert galatea(COUNT, "prompt=x", "num_steps=2", f"out={tmp_path / 'private' / 'made'}").status == 0
    made = tmp_path / "private" / "made"
    for name in ("report.html", "report.json", "provenance.json"):
        assert "private" not in (made / name).read_text(encoding="utf-8"), name
    assert "out: made" in (made / "report.html").read_text(encoding="utf-8")
    config = Config(task="t", prompt="x", out=str(made))
    assert without_places({"notes": [f"the folder {made} holds it", 1]}, config) == {
        "notes": ["the folder made holds it", 1]
    }
    assert without_places("out/made", Config(task="t", prompt="x", out="out/made")) == "out/made"


def test_halves_on_a_cpu_are_announced(tmp_path: Path) -> None:
    run = Run(tmp_path, Config(task="t", prompt="x"))
    for dtype in ("float32", "bfloat16", "float16"):
        announce_slowness(run, BackboneConfig(name="tiny", dtype=dtype))
    run.close()
    (note,) = run.notes
    assert "float16 is many times slower than float32 on a CPU" in note


def test_curve_is_in_its_box() -> None:
    svg = curve_svg([float(value) for value in range(1000)], "<loss>")
    points = [tuple(map(float, pair.split(","))) for pair in re.search(r'points="([^"]*)"', svg)[1].split()]  # type: ignore[index]
    assert len(points) == 180
    assert all(0 <= x <= 360.05 and 0 <= y <= 120 for x, y in points)
    assert points[0][1] > points[-1][1]
    assert "&lt;loss&gt;" in svg
    assert "0.0,60.0" not in curve_svg([1.0, 1.0], "flat")


def test_commit_is_that_of_this_repository() -> None:
    top = Path(provenance.__file__).resolve().parents[2]
    done = subprocess.run(
        ["git", "-C", str(top), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=30
    )
    expected = done.stdout.strip() if done.returncode == 0 else None
    assert provenance.code_commit()["commit"] == expected


def test_files_are_named_without_their_place(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"abc")
    described = provenance.describe_file(tmp_path / "a.txt")
    assert described == {"file": "a.txt", "bytes": 3, "sha256": hashlib.sha256(b"abc").hexdigest()}


def test_atomic_files(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})
    with pytest.raises(ValueError, match="Out of range"):
        write_json(path, {"x": float("nan")})
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise RuntimeError
    assert json.loads(path.read_text()) == {"x": 1}
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]


def test_grid_and_png(tmp_path: Path) -> None:
    from PIL import Image

    images = torch.zeros(2, 3, 3, 4, 5)
    images[1, 2, 0] = 1.0
    sheet = grid(images, gap=1)
    assert sheet.shape == (3, 9, 17)
    assert sheet[:, 5:, 12:].mean((1, 2)).tolist() == [1.0, 0.0, 0.0]
    assert sheet[:, 4].eq(1).all()
    save_png(sheet, tmp_path / "a.png")
    save_png(sheet, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (17, 9)
        assert picture.getpixel((12, 5)) == (255, 0, 0)
    with pytest.raises(ValueError, match=r"\[3, H, W\]"):
        save_png(images, tmp_path / "c.png")


def test_a_row_of_pictures_is_read_as_it_was_written(tmp_path: Path) -> None:
    images = torch.randint(256, (4, 3, 16, 16), generator=torch.Generator().manual_seed(0)) / 255.0
    save_png(grid(images[None]), tmp_path / "row.png")
    torch.testing.assert_close(read_row(tmp_path / "row.png"), images, atol=1e-6, rtol=0)
