"""What the stages that fit a representation have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gen3d.cameras import Cameras
from gen3d.optimize import Fit, Progress, optimize
from gen3d.representations.base import GROUP, Rendered, Representation, RepresentationConfig, load
from gen3d.stages.fitting import finish_step
from gen3d.state import State


@dataclass(frozen=True, kw_only=True)
class DotsConfig(RepresentationConfig):
    """seen: what `after_step` was given."""

    seen: list[tuple[dict[str, Tensor], float]] = field(default_factory=list, compare=False)

    def begin(self, device: torch.device | str = "cpu") -> Dots:
        return Dots(torch.tensor([[1.0, 2.0], [3.0, 4.0]], device=device), self)

    def load(self, tensors: Mapping[str, Tensor]) -> Dots:
        return Dots(tensors["dots"], self)


class Dots(Representation):
    """A row a dot. After the second step the first goes, the other is twice there, and a fresh one comes."""

    def __init__(self, dots: Tensor, config: DotsConfig) -> None:
        self.dots, self.config = dots, config

    @property
    def device(self) -> torch.device:
        return self.dots.device

    def tensors(self) -> dict[str, Tensor]:
        return {"dots": self.dots}

    def rates(self, progress: float = 0.0) -> dict[str, float]:
        return {"dots": 1.0 - progress}

    def render(self, cameras: Cameras, size: int, background: Tensor, **_: object) -> Rendered:
        raise NotImplementedError

    def to_mesh(self, settings: object, views: object) -> None:  # type: ignore[override]
        raise NotImplementedError

    def after_step(
        self, gradients: Mapping[str, Tensor], progress: float, generator: torch.Generator
    ) -> Mapping[str, Tensor] | None:
        self.config.seen.append(({name: g.clone() for name, g in gradients.items()}, progress))
        if progress < 0.5:
            return None
        if len(self.dots) != 2:
            return None
        self.dots = torch.cat([self.dots[[1, 1]], torch.zeros(1, 2)])
        return {"dots": torch.tensor([1, 1, -1])}


class Pull(Fit):
    name, num_steps = "pull", 4

    def __init__(self, config: DotsConfig) -> None:
        self.config = config

    def start(self, state: State, generator: torch.Generator) -> None:
        self.config.begin().save(state)

    def rates(self, state: State, step: int) -> dict[str, float]:
        own = load(self.config, state).rates(step / self.num_steps)
        return {f"{GROUP}/{name}": 0.1 * rate for name, rate in own.items()}

    def losses(self, state: State, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        return {"far": load(self.config, state).tensors()["dots"].square().sum()}

    def after(self, state: State, step: int, generator: torch.Generator) -> dict[str, float]:
        finish_step(self.config, state, step / self.num_steps, generator)
        return {"rows": float(len(state[f"{GROUP}/dots"]))}


def test_moments_follow_rows_that_come_and_go() -> None:
    config, moments = DotsConfig(), f"adam/{GROUP}/dots"
    after: list[dict[str, Tensor]] = []
    rows: list[float] = []
    state = State()

    def note(progress: Progress) -> None:
        rows.append(progress.metrics["rows"])
        after.append(state.tensors())

    optimize([Pull(config)], state, generator=torch.Generator().manual_seed(0), on_step=note)
    assert rows == [2.0, 2.0, 3.0, 3.0]
    assert [progress for _, progress in config.seen] == [0.0, 0.25, 0.5, 0.75]
    torch.testing.assert_close(config.seen[0][0]["dots"], torch.tensor([[2.0, 4.0], [6.0, 8.0]]))
    # Moments of the third step, had nothing moved: the second row's, twice; and none for the fresh one.
    gradients = [given["dots"][1] for given, _ in config.seen[:3]]
    average = torch.zeros(2)
    for gradient in gradients:
        average = 0.9 * average + 0.1 * gradient
    expected = torch.stack([average, average, torch.zeros(2)])
    torch.testing.assert_close(after[2][f"{moments}/exp_avg"], expected)
    assert after[2][f"{moments}/exp_avg_sq"][2].tolist() == [0.0, 0.0]
    assert float(after[3][f"{moments}/step"]) == 4.0
    # The two copies were one, and the fresh row's gradient was zero.
    dots = after[3][f"{GROUP}/dots"]
    assert torch.equal(dots[0], dots[1])
    assert dots[2].tolist() == [0.0, 0.0]
    assert all(tensor.grad is None for tensor in state.values())
