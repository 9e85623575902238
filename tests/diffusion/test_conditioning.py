"""What denoisers are given: rows, joining, and what cannot be joined."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from diffusion.conditioning import Conditioning, Inputs
from tests.diffusion.models import orbit


def rows(*values: float, pooled: bool = True) -> Conditioning:
    embeds = torch.tensor(values).view(-1, 1, 1)
    return Conditioning(embeds=embeds, pooled=embeds[:, 0] if pooled else None)


def numbers(conditioning: Conditioning) -> list[float]:
    return conditioning.embeds.flatten().tolist()


@pytest.mark.parametrize("pooled", [True, False])
def test_rows_are_picked_repeated_and_joined(pooled: bool) -> None:
    both = rows(1, 2, pooled=pooled)
    assert numbers(both[1:]) == [2]
    assert numbers(both.repeat(2)) == [1, 1, 2, 2]
    assert numbers(Conditioning.cat([both, both[:1]])) == [1, 2, 1]
    for each in (both[1:], both.repeat(2), Conditioning.cat([both, both]), both.to("cpu")):
        assert (each.pooled is not None) is pooled
        assert each.pooled is None or torch.equal(each.pooled, each.embeds[:, 0])
    with pytest.raises(ValueError, match="pooled must be given in all conditions or in none"):
        Conditioning.cat([both, rows(3, pooled=not pooled)])


def test_joined_inputs_have_the_objects_of_all() -> None:
    first, second = Inputs(conditioning=rows(1, 2), camera=orbit(2, 3)), Inputs(conditioning=rows(3, 4))
    assert first.given == {"camera"}
    assert second.given == frozenset()
    both = Inputs.cat([first, replace(second, camera=orbit(2, 3) + 1)])
    assert numbers(both.conditioning) == [1, 2, 3, 4]
    assert both.camera is not None
    assert torch.equal(both.camera[2:], orbit(2, 3) + 1)
    of_views = replace(first, conditioning=rows(*range(6)))
    assert numbers(Inputs.cat([first, of_views]).conditioning) == [1, 1, 1, 2, 2, 2, *range(6)]
    assert numbers(Inputs(conditioning=rows(5)).for_objects(3).conditioning) == [5, 5, 5]
    assert first.for_objects(2) is first
    with pytest.raises(ValueError, match="camera must be given in all conditions or in none"):
        Inputs.cat([first, second])
    with pytest.raises(ValueError, match=r"as many rows as each other.*got \[2, 3\]"):
        Inputs.cat([second, Inputs(conditioning=rows(1, 2, 3))])
    with pytest.raises(ValueError, match="record of one call cannot be joined with another's"):
        Inputs.cat([second, replace(second, record={})])
