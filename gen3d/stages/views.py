"""Views in a State: pictures with their cameras, masks and backgrounds, and rays drawn from them.

Legend: K views kept, H x W pixels, N rays. Tensors ``views/images [K, 3, H, W]``, ``views/masks [K, 1, H, W]``,
``views/backgrounds [K, 3]``, ``views/c2w [K, 4, 4]``, ``views/fovy_deg [K]``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from gen3d.cameras import Cameras
from gen3d.state import State

# A mask's threshold is at least so many times the unevenness of the background, up to so many times what was asked.
_ABOVE_NOISE, _AT_MOST = 2.0, 2.5
# Range of the object's share in a pixel, about a half, over which a mask goes from 0 to 1: noise is neither.
_OUTLINE = 0.8


class ViewProvider(Protocol):
    """Makes views of the wanted object: a diffusion model, or in a test the object itself."""

    def __call__(
        self,
        cameras: Cameras,
        init_images: Tensor | None,
        start_timestep: int | None,
        generator: torch.Generator,
    ) -> Tensor:
        """Images ``[V, 3, H, W]`` sRGB in [0, 1] for V cameras: from nothing, or from ``init_images [V, 3, H, W]``
        noised to ``start_timestep``."""
        ...


@dataclass(frozen=True, kw_only=True)
class Views:
    """K pictures of one object; see the module's docstring for shapes."""

    images: Tensor
    masks: Tensor
    backgrounds: Tensor
    cameras: Cameras

    def __len__(self) -> int:
        return len(self.cameras)

    def __getitem__(self, index: slice) -> Views:
        return Views(
            images=self.images[index],
            masks=self.masks[index],
            backgrounds=self.backgrounds[index],
            cameras=self.cameras[index],
        )

    def save(self, state: State) -> None:
        state.set_group(
            "views",
            {
                "images": self.images,
                "masks": self.masks,
                "backgrounds": self.backgrounds,
                "c2w": self.cameras.c2w,
                "fovy_deg": self.cameras.fovy_deg,
            },
        )

    @staticmethod
    def load(state: State) -> Views:
        return Views(
            images=state["views/images"],
            masks=state["views/masks"],
            backgrounds=state["views/backgrounds"],
            cameras=Cameras(c2w=state["views/c2w"], fovy_deg=state["views/fovy_deg"]),
        )

    @staticmethod
    def cat(parts: list[Views]) -> Views:
        return Views(
            images=torch.cat([p.images for p in parts]),
            masks=torch.cat([p.masks for p in parts]),
            backgrounds=torch.cat([p.backgrounds for p in parts]),
            cameras=Cameras(
                c2w=torch.cat([p.cameras.c2w for p in parts]),
                fovy_deg=torch.cat([p.cameras.fovy_deg for p in parts]),
            ),
        )

    @staticmethod
    def from_images(images: Tensor, cameras: Cameras, *, threshold: float = 0.06) -> Views:
        """Separate ``images [V, 3, H, W]`` of one plain background from it.

        threshold: as of ``soft_mask``; raised where the background itself is uneven. Where nothing but background is
        seen, the pictures are made even.
        """
        background, noise = plain_background(images)
        raised = min(_ABOVE_NOISE * noise, _AT_MOST * threshold)
        masks = soft_mask(images, background, max(threshold, raised))
        return Views(
            images=torch.where(masks > 0.0, images, background[:, None, None]),
            masks=masks,
            backgrounds=background.expand(len(images), 3).contiguous(),
            cameras=cameras,
        )


def border_color(images: Tensor) -> Tensor:
    """The background ``[3]`` of ``images [V, 3, H, W]``: the median colour along their borders.

    All views together, since an object that touches the border of one picture seldom touches all of them.
    """
    width = max(1, images.shape[-1] // 32)
    top, bottom = images[..., :width, :], images[..., -width:, :]
    left, right = images[..., width:-width, :width], images[..., width:-width, -width:]
    pixels = [part.transpose(0, 1).reshape(3, -1) for part in (top, bottom, left, right)]
    return torch.cat(pixels, dim=1).median(dim=1).values


def plain_background(images: Tensor) -> tuple[Tensor, float]:
    """The background ``[3]`` of ``images [V, 3, H, W]`` and how far most of it is from that colour.

    A model's pictures are often uneven, and odd in their outermost pixels. So this looks at a frame within those, an
    eighth of the picture wide, and leaves out what differs much from the border colour, with some room around it
    (Otsu's threshold). The colour is the median of the rest and the distance its 80 % quantile (largest difference of
    a channel), since pale parts of the object may be left.
    """
    border = border_color(images)
    difference = (images - border[:, None, None]).abs().amax(dim=1, keepdim=True)
    room = max(1, images.shape[-1] // 16)
    near_object = F.max_pool2d((difference > _otsu(difference)).float(), 2 * room + 1, stride=1, padding=room)
    frame = torch.zeros_like(near_object, dtype=torch.bool)
    outer, inner = (room + 1) // 2, 2 * room + (room + 1) // 2
    frame[..., outer:-outer, outer:-outer] = True
    frame[..., inner:-inner, inner:-inner] = False
    used = (frame & (near_object < 0.5))[:, 0]
    if int(used.sum()) < used.numel() // 100:
        return border, 0.0
    pixels = images.transpose(0, 1)[:, used]
    color = pixels.median(dim=1).values
    distance = (pixels - color[:, None]).abs().amax(dim=0)
    return color, float(distance.kthvalue(max(1, math.ceil(0.8 * len(distance)))).values)


def _otsu(values: Tensor, bins: int = 128) -> float:
    """The threshold that parts values in [0, 1] into two groups of the least spread (Otsu 1979)."""
    share = torch.histc(values.cpu().float(), bins, 0.0, 1.0).double()
    share = share / share.sum()
    centres = (torch.arange(bins, dtype=torch.float64) + 0.5) / bins
    below, moment = share.cumsum(0), (share * centres).cumsum(0)
    between = (moment[-1] * below - moment).square() / (below * (1.0 - below)).clamp_min(1e-9)
    return float(centres[between.argmax()])


def soft_mask(images: Tensor, background: Tensor, threshold: float) -> Tensor:
    """Where ``images [V, 3, H, W]`` differ from ``background [3]``: ``[V, 1, H, W]`` in [0, 1].

    0 up to half the ``threshold`` (largest difference of a channel), 1 from one and a half of it. Specks are taken
    out and pinholes closed by a 3 x 3 median. Along the outline, where a pixel mixes object and background, the mask
    is the object's share in the mixture instead: a blurred outline stays where it is.
    """
    difference = (images - background[:, None, None]).abs().amax(dim=1, keepdim=True)
    mask = ((difference - 0.5 * threshold) / threshold).clamp(0.0, 1.0)
    patches = F.unfold(F.pad(mask, (1, 1, 1, 1), mode="replicate"), 3)
    mask = patches.median(dim=1).values.view_as(mask)
    reach = max(1, images.shape[-1] // 64)
    solid = (mask > 0.5).float()
    share = difference / _object_difference(difference, solid, reach)
    share = ((share - 0.5) / _OUTLINE + 0.5).clamp(0.0, 1.0)
    return torch.where(_erode(solid, reach) > 0.5, mask, torch.minimum(mask, share))


def _object_difference(difference: Tensor, solid: Tensor, reach: int) -> Tensor:
    """How far the object itself is from the background around each pixel, all ``[V, 1, H, W]``: the mean within
    ``reach`` of ``solid`` pixels that are not at its edge and not much weaker than others; the greatest where there
    are none, as on thin parts."""
    size = 2 * reach + 1
    greatest = F.max_pool2d(difference * solid, size, stride=1, padding=reach)
    whole = _erode(solid, 1) * (difference > 0.5 * greatest)
    count = F.avg_pool2d(whole, size, stride=1, padding=reach)
    mean = F.avg_pool2d(difference * whole, size, stride=1, padding=reach) / count.clamp_min(1e-6)
    return torch.where(count > 1e-6, mean, greatest).clamp_min(1e-6)


def _erode(solid: Tensor, reach: int) -> Tensor:
    """``solid [V, 1, H, W]`` less what lies within ``reach`` pixels of its outline; the picture's edge is none."""
    return -F.max_pool2d(-F.pad(solid, (reach,) * 4, value=1.0), 2 * reach + 1, stride=1)


@dataclass(frozen=True, kw_only=True)
class RayBatch:
    """N rays with what they should see; all ``[N, 3]`` but ``mask [N]``."""

    origins: Tensor
    directions: Tensor
    color: Tensor
    mask: Tensor
    background: Tensor


def draw_rays(views: Views, count: int, generator: torch.Generator, *, focus: float = 0.5) -> RayBatch:
    """``count`` rays through random pixels; the share ``focus`` of them from within the object's box in its view,
    grown by a twentieth, where there is something to learn."""
    num_views, _, height, width = views.images.shape
    device = generator.device

    def uniform() -> Tensor:
        return torch.rand(count, generator=generator, device=device).to(views.images.device)

    view = (uniform() * num_views).long().clamp_max(num_views - 1)
    focused = torch.arange(count, device=view.device) < round(focus * count)
    whole = torch.tensor([0.0, 1.0, 0.0, 1.0], device=view.device)
    low_x, high_x, low_y, high_y = torch.where(focused[:, None], _boxes(views.masks)[view], whole).unbind(1)
    column = ((low_x + (high_x - low_x) * uniform()) * width).long().clamp_max(width - 1)
    row = ((low_y + (high_y - low_y) * uniform()) * height).long().clamp_max(height - 1)
    origins, directions = pixel_rays(views.cameras, view, row, column, height)
    return RayBatch(
        origins=origins,
        directions=directions,
        color=views.images[view, :, row, column],
        mask=views.masks[view, 0, row, column],
        background=views.backgrounds[view],
    )


def _boxes(masks: Tensor) -> Tensor:
    """Bounds ``[K, 4]`` (x low, x high, y low, y high) in [0, 1] of masks ``[K, 1, H, W]``, grown a little; the whole
    picture for an empty one."""
    solid = masks[:, 0] > 0.5
    bounds = []
    for axis in (1, 2):
        used = solid.any(dim=axis)
        size = used.shape[1]
        position = torch.arange(size, device=masks.device)
        low = torch.where(used, position, size).amin(dim=1)
        high = torch.where(used, position + 1, 0).amax(dim=1)
        empty = low >= high
        bounds.append(torch.where(empty, 0.0, (low / size - 0.05).clamp_min(0.0)))
        bounds.append(torch.where(empty, 1.0, (high / size + 0.05).clamp_max(1.0)))
    return torch.stack(bounds, dim=1)


def pixel_rays(
    cameras: Cameras, view: Tensor, row: Tensor, column: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """Rays through the centres of pixels of square pictures: origins and unit directions, ``[N, 3]`` each."""
    tan = torch.tan(torch.deg2rad(cameras.fovy_deg) / 2)[view]
    x = (column + 0.5 - size / 2) / (size / 2) * tan
    y = (size / 2 - 0.5 - row) / (size / 2) * tan
    local = F.normalize(torch.stack([x, y, -torch.ones_like(x)], dim=-1), dim=-1)
    rotation = cameras.c2w[:, :3, :3][view]
    return cameras.positions[view], (rotation * local[:, None]).sum(dim=-1)
