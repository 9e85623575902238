"""More latent channels for a VAE and a UNet that were trained with fewer.

The wider network starts out as the narrow one: what was there computes what it did, and new channels begin at random.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

# Layers of AutoencoderKL and UNet2DConditionModel that latents go into or come out of. The encoder's end gives means
# and log-variances, one half after the other.
_LATENT = ("encoder.conv_out", "quant_conv", "post_quant_conv", "decoder.conv_in", "conv_in", "conv_out")
_HALVES = ("encoder.conv_out", "quant_conv")


def widened(narrow: Mapping[str, Tensor], wide: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the shapes of ``wide``, of which ``narrow`` has those with fewer latent channels.

    New inputs of old outputs are 0; new outputs stay as ``wide`` has them. Other layers are those of ``narrow``,
    whatever their shape.
    """
    result = dict(narrow)
    for name, new in wide.items():
        layer, old = name.rpartition(".")[0], narrow.get(name)
        if layer in _LATENT and old is not None and old.shape != new.shape:
            result[name] = _placed(old, new, halves=layer in _HALVES)
    return result


def _placed(old: Tensor, new: Tensor, *, halves: bool) -> Tensor:
    value = new.clone()
    rows = _places(old.shape[0], new.shape[0], halves)
    if old.ndim == 1:
        value[rows] = old.to(value)
        return value
    block = value[rows].zero_()
    block[:, _places(old.shape[1], new.shape[1], halves)] = old.to(value)
    value[rows] = block
    return value


def _places(old: int, new: int, halves: bool) -> list[int]:
    """Where ``old`` channels lie among ``new`` ones."""
    if old == new or not halves:
        return list(range(old))
    return [*range(old // 2), *range(new // 2, new // 2 + old // 2)]
