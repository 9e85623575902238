from __future__ import annotations

from pathlib import Path

import pytest
import torch

from experiments.run.checkpoint import STATE, CheckpointStore, CheckpointWarning


def tensors(value: float) -> dict[str, torch.Tensor]:
    return {
        "a": torch.full((2, 3), value),
        "step": torch.tensor(7),
        "bits": torch.tensor([1, 255], dtype=torch.uint8),
    }


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(
        torch.equal(left[k], right[k]) and left[k].dtype == right[k].dtype for k in left
    )


def test_round_trip_keeps_bits_types_and_metadata(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints")
    assert store.latest() is None
    generator = torch.Generator().manual_seed(3)
    saved = {**tensors(0.1), "rng": generator.get_state()}
    store.save(400, saved, {"stage": "fit \u00fc"})
    assert (tmp_path / "checkpoints" / "step_00000400" / "state.safetensors").is_file()
    found = store.latest()
    assert found is not None
    assert (found.step, found.metadata) == (400, {"stage": "fit \u00fc"})
    assert same(found.tensors, saved)
    expected = torch.rand(3, generator=generator)
    assert torch.equal(torch.rand(3, generator=_restored(found.tensors["rng"])), expected)


def _restored(state: torch.Tensor) -> torch.Generator:
    generator = torch.Generator()
    generator.set_state(state)
    return generator


def test_views_shared_storage_and_gradients_are_saved_by_value(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    base = torch.arange(12.0).reshape(3, 4).requires_grad_()
    store.save(1, {"base": base, "transposed": base.T, "row": base[1]})
    found = store.load(1).tensors
    assert torch.equal(found["transposed"], base.T)
    assert torch.equal(found["row"], base[1])
    assert base.requires_grad


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for step in (1, 2, 3, 10):
        store.save(step, tensors(step))
    assert store.steps() == [3, 10]
    store.save(3, tensors(3.5))  # the run was set back to step 3: what came later is another future
    assert store.steps() == [3]
    assert same(store.load(3).tensors, tensors(3.5))
    with pytest.raises(ValueError, match="keep is 1"):
        CheckpointStore(tmp_path, keep=1)
    with pytest.raises(ValueError, match="step is -1"):
        store.save(-1, {})


@pytest.mark.parametrize("damage", ["cut", "empty", "flip", "gone", "digest gone", "text"])
def test_a_damaged_newest_falls_back_with_a_warning(tmp_path: Path, damage: str) -> None:
    store = CheckpointStore(tmp_path)
    store.save(1, tensors(1.0))
    store.save(2, tensors(2.0))
    path = store.path(2) / STATE
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "digest gone":
        (store.path(2) / "state.sha256").unlink()
    else:
        flipped = content[:-1] + bytes([content[-1] ^ 1])
        path.write_bytes(
            {"cut": content[: len(content) // 2], "empty": b"", "flip": flipped, "text": b"no tensors"}[
                damage
            ]
        )
    with pytest.warns(CheckpointWarning, match="step_00000002.*going back to step 1"):
        found = store.latest()
    assert found is not None
    assert found.step == 1
    assert same(found.tensors, tensors(1.0))
    store.save(2, tensors(2.0))
    assert store.latest() is not None


def test_nothing_whole_means_the_beginning(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(5, tensors(1.0))
    (store.path(5) / STATE).write_bytes(b"")
    with pytest.warns(CheckpointWarning, match="going back to the beginning"):
        assert store.latest() is None


def test_what_a_killed_writer_leaves_is_ignored_and_removed(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(1, tensors(1.0))
    (tmp_path / ".tmp-00000002").mkdir()
    (tmp_path / ".tmp-00000002" / STATE).write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    assert store.steps() == [1]
    store.save(2, tensors(2.0))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "step_00000001", "step_00000002"]


def test_a_failed_save_keeps_what_was_there(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(1, tensors(1.0))
    with pytest.raises(AttributeError):
        store.save(2, {"bad": "no tensor"})  # type: ignore[dict-item]
    assert store.steps() == [1]
    assert store.latest() is not None
