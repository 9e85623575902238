"""MVDream's reconstruction loss (arXiv 2308.16512): pull the latents to the denoised estimate of all views."""

from __future__ import annotations

from torch import Tensor


def x0_target(x0_guided: Tensor, x0_cond: Tensor, *, rescale: float = 0.5) -> Tensor:
    """The clean latents to pull to: ``x0_guided [B, V, C, h, w]``, its contrast brought towards ``x0_cond``'s.

    Guidance exaggerates contrast; ``rescale`` r of that is undone, r std(x0_cond) / std(x0_guided) + (1 - r), the
    standard deviations taken over all views of an object.
    """
    if not 0.0 <= rescale <= 1.0:
        raise ValueError(f"rescale must lie in 0..1, got {rescale}")
    if rescale == 0.0:
        return x0_guided
    axes = tuple(range(1, x0_guided.ndim))
    factor = x0_cond.std(dim=axes, keepdim=True) / x0_guided.std(dim=axes, keepdim=True).clamp_min(1e-8)
    return x0_guided * (rescale * factor + 1.0 - rescale)


def x0_gradient(latents: Tensor, x0_guided: Tensor, x0_cond: Tensor, *, rescale: float = 0.5) -> Tensor:
    """Gradient in latent space, shape of ``latents [B, V, C, h, w]``; give it to ``inject``.

    Without rescaling it is SDS with w(t) = sigma / alpha.
    """
    return latents.detach() - x0_target(x0_guided, x0_cond, rescale=rescale)
