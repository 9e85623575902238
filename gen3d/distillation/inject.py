"""How a gradient that no loss function has is given to autograd."""

from __future__ import annotations

from torch import Tensor

from diffusion.finite import check_finite


def inject(latents: Tensor, gradient: Tensor) -> Tensor:
    """A scalar whose gradient with respect to `latents [B, ...]` is `gradient / B`.

    Its value is half the squared norm of the gradient over B, which falls as the latents become likelier.
    """
    if latents.shape != gradient.shape:
        raise ValueError(
            f"gradient must have the latents' shape {list(latents.shape)}, got {list(gradient.shape)}"
        )
    target = (latents - gradient).detach()
    return 0.5 * (latents - target).square().sum() / latents.shape[0]


def clip_gradient(gradient: Tensor, limit: float) -> Tensor:
    """Scale each item of `gradient [B, ...]` down to an RMS of at most `limit`."""
    rms = gradient.square().mean(dim=tuple(range(1, gradient.ndim)), keepdim=True).sqrt()
    return gradient * (limit / rms.clamp_min(1e-12)).clamp_max(1.0)


def limited(gradient: Tensor, name: str, clip: float, limit: float) -> Tensor:
    """The gradient of the loss `name` in float32, each number within -`clip`..`clip` (Debiased-SDS, arXiv 2303.15413;
    0 leaves them as they are), and then as `clip_gradient`. NaN or infinity raises `NonFiniteError`."""
    gradient = check_finite(
        gradient.float(),
        f"the gradient of the loss {name!r}",
        "lower its guidance_scale, keep its timesteps away from 0 and 1, or give the backbone dtype float32",
    )
    return clip_gradient(gradient.clamp(-clip, clip) if clip else gradient, limit)
