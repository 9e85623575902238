"""Captions, table, contact sheet, R-precision and validator of the benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from diffusion.backbone import load
from experiments.benchmark import contact_sheet, gltf, retrieval, table
from experiments.benchmark.cases import default_cases, read_cases
from experiments.benchmark.config import ScoreConfig
from experiments.benchmark.truth import Truth, grey_sphere
from experiments.tasks.benchmark_text_to_3d import summarise
from experiments.world.captions import held_out, parse
from gen3d.export import save_glb


def entry(caption: str, group: str, iou: float, reason: str = "") -> dict[str, Any]:
    scores = {"iou": iou, "albedo_error": 0.1, "watertight": not reason, "r_precision": iou > 0.5}
    if group == "heads":
        scores |= {"face_front": True, "face_back": False}
    costs = {
        "seconds": None if reason else 42.0,
        "wall_seconds": None,
        "peak_memory_mb": None,
        "psnr_db": 33.0,
    }
    controls = {"oracle": {"iou": 0.99}, "sphere": {"iou": 0.2}}
    return {
        "index": 0, "caption": caption, "group": group, "reason": reason, "scores": scores, "costs": costs,
        "controls": controls, "gltf": None if reason else {"errors": 0, "warnings": 1},
    }  # fmt: skip


def result() -> dict[str, Any]:
    assets = [entry("a red | mushroom", "things", 0.8), entry("a man", "heads", 0.0, "exit status 1: <boom>")]
    return {
        "experiment": "benchmark/text_to_3d", "created": "2026-01-02T03:04:05+00:00", "command": "galatea x",
        "generator": {"version": "1", "commit": "abc", "modified": True},
        "backbone": {"name": "tiny", "revision": None}, "r_precision": "not measured",
        "hardware": {"processor": "P", "cores": 2, "memory_gb": 4.0, "device": "cpu", "load_average": 0.5},
        "gltf_validator": {"version": "2.0", "files": 1, "errors": 0, "warnings": 1},
        "groups": summarise(assets), "assets": assets,
    }  # fmt: skip


def test_default_captions_are_held_out_and_stable() -> None:
    cases = default_cases(16, 12, 8)
    assert [case.group for case in cases] == ["things"] * 16 + ["pairs"] * 12 + ["heads"] * 8
    assert [case.index for case in cases] == list(range(36))
    assert all(held_out(parse(case.caption)) for case in cases)
    assert len({case.caption for case in cases}) == 36
    assert cases == default_cases(16, 12, 8)
    assert [case.group for case in default_cases(0, 1, 0)] == ["pairs"]


def test_a_file_of_captions(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    text = "\ufeff# mine\n\na red mushroom\r\n  a blue cone on a yellow cube \na portrait of a man\n"
    path.write_text(text, encoding="utf-8")
    cases = read_cases(path)
    assert [(case.index, case.caption, case.group) for case in cases] == [
        (0, "a red mushroom", "things"),
        (1, "a blue cone on a yellow cube", "pairs"),
        (2, "a portrait of a man", "heads"),
    ]


def test_means_and_table() -> None:
    made = result()
    assert made["groups"]["things"]["scores"]["iou"] == 0.8
    assert made["groups"]["all"]["scores"]["iou"] == pytest.approx(0.4)
    assert (made["groups"]["all"]["count"], made["groups"]["all"]["failed"]) == (2, 1)
    assert made["groups"]["all"]["costs"]["seconds"] == 42.0
    assert "pairs" not in made["groups"]
    text = table.markdown(made)
    for part in (
        "2026-01-02",
        "`galatea x`",
        "commit abc with changes",
        "a red \\| mushroom",
        "&lt;boom>",
        "0 / 1",
    ):
        assert part in text
    for part in ("gltf-validator 2.0: 0 errors and 1 warnings in 1 files", "things: a grey ball", "1 of 2"):
        assert part in text
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 2
    for block in tables:
        widths = {line.replace("\\|", "").count("|") for line in block.strip().splitlines()}
        assert len(widths) == 1, "every row has as many cells as the header"
    assert "failed: a man: exit status 1" in table.summary(made)
    made["gltf_validator"]["version"] = None
    assert "not run" in table.markdown(made)


def test_contact_sheet(tmp_path: Path) -> None:
    red, blue = torch.zeros(4, 3, 32, 32), torch.zeros(4, 3, 32, 32)
    red[:, 0], blue[:, 2] = 1.0, 1.0
    rows = [
        contact_sheet.Row(caption="a red ball, \u2603", line="IoU 0.50", blocks=(red, blue)),
        contact_sheet.Row(caption="x" * 400, line="killed by signal 9", blocks=(red, None)),
    ]
    contact_sheet.save(rows, tmp_path / "sheet.png", ("truth", "mesh"))
    with Image.open(tmp_path / "sheet.png") as sheet:
        colors = {color: count for count, color in sheet.convert("RGB").getcolors(1 << 20) or []}
    assert colors[(255, 0, 0)] == 2 * 4 * 32 * 32
    assert colors[(0, 0, 255)] == 4 * 32 * 32
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet.draw([], ("truth", "mesh"))


def test_r_precision_by_the_embedded_model(tiny_weights: Path) -> None:
    backbone = load(tiny_weights)
    captions = ["a red sphere", "a blue cube", "a portrait of a man with short black hair"]
    texts = retrieval.embed_captions(backbone, captions)
    config = ScoreConfig(mesh_resolution=64)
    found = []
    for index, caption in enumerate(captions):
        embedding = retrieval.embed_views(backbone, retrieval.views(Truth(caption, config).mesh))
        assert float(embedding.norm()) == pytest.approx(1.0, abs=1e-4)
        found.append(retrieval.retrieved(embedding, texts, index))
    assert sum(found) >= 2


def test_retrieval_takes_the_nearest_caption() -> None:
    captions = torch.eye(3)
    assert retrieval.retrieved(torch.tensor([0.1, 0.9, 0.2]), captions, 1)
    assert not retrieval.retrieved(torch.tensor([0.1, 0.9, 0.2]), captions, 0)


def test_validator_judges_files_where_it_is_installed(tmp_path: Path) -> None:
    save_glb(grey_sphere(0.5, 8), tmp_path / "good.glb")
    (tmp_path / "bad.glb").write_bytes(b"glTF nothing of the kind")
    version, found = gltf.validate([tmp_path / "good.glb", tmp_path / "bad.glb"])
    if version is None:
        assert found == []
        pytest.skip("gltf-validator is not installed")
    assert (found[0]["errors"], found[0]["warnings"]) == (0, 0)
    assert int(str(found[1]["errors"])) > 0
