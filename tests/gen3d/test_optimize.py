"""The loop: order, saves, bit-identical resume, interruption, non-finite values."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence

import pytest
import torch
from torch import Tensor

from diffusion.finite import NonFiniteError
from gen3d.adam import Adam, adam_step
from gen3d.optimize import Fit, Progress, Stage, Transform, optimize
from gen3d.state import State

Save = tuple[int, dict[str, Tensor], dict[str, str]]


class Noisy(Fit):
    """Adam on noisy targets: parameter, moments and generator all matter to the next step."""

    def __init__(self, name: str, num_steps: int, upset: Callable[[int], None] | None = None) -> None:
        self.name, self.num_steps, self.upset = name, num_steps, upset

    def start(self, state: State, generator: torch.Generator) -> None:
        state[f"{self.name}/p"] = torch.randn(7, generator=generator)

    def rates(self, state: State, step: int) -> dict[str, float]:
        return {f"{self.name}/p": 0.1}

    def losses(self, state: State, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        if self.upset is not None:
            self.upset(step)
        return {"error": (state[f"{self.name}/p"] - torch.randn(7, generator=generator)).square().sum()}


class Double(Transform):
    """Twice what is there."""

    name = "double"

    def apply(self, state: State, generator: torch.Generator) -> dict[str, float]:
        state["a/p"] = 2.0 * state["a/p"]
        return {"norm": float(state["a/p"].norm())}


def run(
    stages: Sequence[Stage], resume: Save | None = None, every: int = 1
) -> tuple[dict[str, Tensor], list[Save]]:
    saves: list[Save] = []
    state = optimize(
        stages,
        State(),
        generator=torch.Generator().manual_seed(3),
        save=lambda step, tensors, metadata: saves.append((step, tensors, metadata)),
        checkpoint_every=every,
        resume=None if resume is None else (resume[1], resume[2]),
    )
    return state.tensors(), saves


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_resume_from_every_save_ends_bit_identical() -> None:
    def stages() -> list[Stage]:
        return [Noisy("a", 4), Double(), Noisy("c", 5)]

    final, saves = run(stages())
    assert [save[0] for save in saves] == list(range(1, 11))
    assert "adam/c/p/exp_avg" in saves[-2][1]
    assert not any(name.startswith("adam/") for _, tensors, _ in (saves[3], saves[-1]) for name in tensors)
    for save in saves:
        resumed, later = run(stages(), resume=save)
        assert same(final, resumed), f"resumed from step {save[0]}"
        assert [s[0] for s in later] == list(range(save[0] + 1, 11))


def test_saves_are_copies_and_happen_at_ends_of_stages() -> None:
    _, saves = run([Noisy("a", 5), Noisy("b", 3)], every=3)
    assert [save[0] for save in saves] == [3, 5, 6, 8]
    assert not torch.equal(saves[0][1]["a/p"], saves[1][1]["a/p"])


def test_progress_tells_of_every_step_and_its_losses() -> None:
    seen: list[Progress] = []
    optimize(
        [Noisy("a", 2), Double()], State(), generator=torch.Generator().manual_seed(0), on_step=seen.append
    )
    assert [(p.stage_index, p.step, p.stage_steps) for p in seen] == [(0, 1, 2), (0, 2, 2), (1, 1, 1)]
    assert [list(p.metrics) for p in seen] == [["loss", "error"]] * 2 + [["norm"]]
    assert seen[0].metrics["loss"] == seen[0].metrics["error"]


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_finishes_the_step_saves_and_raises() -> None:
    def upset(step: int) -> None:
        if step == 2:
            signal.raise_signal(signal.SIGINT)

    saves: list[Save] = []
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        optimize(
            [Noisy("a", 6, upset)],
            State(),
            generator=torch.Generator().manual_seed(3),
            save=lambda *save: saves.append(save),
        )
    assert signal.getsignal(signal.SIGINT) is handler
    assert [save[0] for save in saves] == [3]
    assert same(run([Noisy("a", 6)], resume=saves[0])[0], run([Noisy("a", 6)])[0])


class Spoiled(Noisy):
    def __init__(self, where: str) -> None:
        super().__init__("bad", 5)
        self.where = where

    def losses(self, state: State, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        losses = super().losses(state, step, generator)
        if step == 2 and self.where == "gradient":
            losses["error"] = losses["error"] * float("nan")
        return losses

    def after(self, state: State, step: int, generator: torch.Generator) -> dict[str, float]:
        if step == 2 and self.where == "tensor":
            state["bad/p"][3] = float("nan")
        return {"speed": float("inf")} if step == 2 and self.where == "metric" else {}


@pytest.mark.parametrize(
    ("where", "named"), [("metric", "speed"), ("tensor", "bad/p"), ("gradient", "bad/p")]
)
def test_non_finite_values_stop_the_step_before_it_is_saved(where: str, named: str) -> None:
    saves: list[Save] = []
    with pytest.raises(NonFiniteError, match=rf"stage 'bad', step 3.*{named}"):
        optimize(
            [Spoiled(where)],
            State(),
            generator=torch.Generator().manual_seed(0),
            save=lambda *save: saves.append(save),
            checkpoint_every=1,
        )
    assert [save[0] for save in saves] == [1, 2]
    assert all(bool(torch.isfinite(t).all()) for _, tensors, _ in saves for t in tensors.values())


def test_resume_refuses_another_plan_and_foreign_files() -> None:
    _, saves = run([Noisy("a", 3)])
    with pytest.raises(ValueError, match="other stages"):
        run([Noisy("a", 4)], resume=saves[0])
    with pytest.raises(ValueError, match="no saved run"):
        run([Noisy("a", 3)], resume=(0, {}, {}))
    with pytest.raises(ValueError, match="checkpoint_every"):
        optimize([], State(), generator=torch.Generator(), checkpoint_every=0)


def test_state_groups_and_missing_names() -> None:
    state = State({"a/x": torch.ones(2), "a/y": torch.zeros(1), "ab/x": torch.ones(1)})
    assert set(state.group("a")) == {"x", "y"}
    state.set_group("a", {"z": torch.ones(3)})
    assert set(state) == {"a/z", "ab/x"}
    with pytest.raises(KeyError, match="holds no tensor 'q'"):
        state["q"]
    assert state["ab/x"].is_contiguous()


def test_adam_matches_torch() -> None:
    start = torch.linspace(-1, 1, 9)
    reference = start.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([reference], lr=0.05, betas=(0.9, 0.99), eps=1e-15)
    state = State({"p": start.clone()})
    for _ in range(4):
        optimizer.zero_grad()
        (reference**2).sum().backward()
        optimizer.step()
        (state["p"].requires_grad_(True) ** 2).sum().backward()
        adam_step(state, {"p": 0.05}, Adam())
        state["p"].grad = None
    torch.testing.assert_close(state["p"].detach(), reference.detach(), rtol=1e-6, atol=1e-7)


def test_gradients_are_reduced_and_clipped_before_the_step() -> None:
    """Two processes that see one half of the data each, and one that sees all."""
    seen: list[float] = []

    class Still(Noisy):
        optimizer = Adam(max_norm=0.5)

        def losses(self, state: State, step: int, generator: torch.Generator) -> dict[str, Tensor]:
            return {"error": state["a/p"].square().sum()}

    def reduce(gradients: Mapping[str, Tensor]) -> None:
        assert list(gradients) == ["a/p"]
        seen.append(float(gradients["a/p"].norm()))
        gradients["a/p"].zero_()

    generator = torch.Generator().manual_seed(3)
    before = torch.randn(7, generator=torch.Generator().manual_seed(3))
    state = optimize([Still("a", 1)], State(), generator=generator, reduce=reduce)
    assert seen == pytest.approx([2.0 * float(before.norm())])
    assert torch.equal(state["a/p"], before)

    clipped = State({"p": torch.zeros(2), "q": torch.zeros(1)})
    for name, gradient in (("p", [3.0, 0.0]), ("q", [4.0])):
        clipped[name].grad = torch.tensor(gradient)
    adam_step(clipped, {"p": 0.1, "q": 0.1}, Adam(max_norm=0.5))
    assert clipped["adam/p/exp_avg"].tolist() == pytest.approx([0.1 * 0.3, 0.0], rel=1e-2)
    assert clipped["adam/q/exp_avg"].tolist() == pytest.approx([0.1 * 0.4], rel=1e-2)
