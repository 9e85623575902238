"""Views in a State: pictures with their cameras, masks and backgrounds.

Legend: K views kept, H x W pixels. Tensors `views/images [K, 3, H, W]`, `views/masks [K, 1, H, W]`,
`views/backgrounds [K, 3]`, `views/c2w [K, 4, 4]`, `views/fovy_deg [K]`; where they are known, `views/depth
[K, 1, H, W]` and `views/normals [K, 3, H, W]`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gen3d.cameras import Cameras
from gen3d.domain_pictures import depth_of, normals_of
from gen3d.masks import plain_background, soft_mask
from gen3d.state import State

# A mask's threshold is at least so many times the unevenness of the background, up to so many times what was asked.
_ABOVE_NOISE, _AT_MOST = 2.0, 2.5
_INSIDE = 0.9  # of a mask, which is nearly 1 within the object


@dataclass(frozen=True, kw_only=True)
class Views:
    """K pictures of one object; see the module's docstring for shapes.

    depth: distance from the camera along the ray, world units, 0 where it is not known or nothing is seen. normals:
    outward unit normals in the world's axes, times the mask; 0 where they are not known.
    """

    images: Tensor
    masks: Tensor
    backgrounds: Tensor
    cameras: Cameras
    depth: Tensor | None = None
    normals: Tensor | None = None

    def __len__(self) -> int:
        return len(self.cameras)

    def __getitem__(self, index: slice | Tensor) -> Views:
        return Views(
            images=self.images[index],
            masks=self.masks[index],
            backgrounds=self.backgrounds[index],
            cameras=self.cameras[index],
            depth=None if self.depth is None else self.depth[index],
            normals=None if self.normals is None else self.normals[index],
        )

    def to(self, device: torch.device | str) -> Views:
        """The same views on another device."""
        return Views(
            images=self.images.to(device),
            masks=self.masks.to(device),
            backgrounds=self.backgrounds.to(device),
            cameras=self.cameras.to(device),
            depth=None if self.depth is None else self.depth.to(device),
            normals=None if self.normals is None else self.normals.to(device),
        )

    def save(self, state: State) -> None:
        known = {"depth": self.depth, "normals": self.normals}
        state.set_group(
            "views",
            {
                "images": self.images,
                "masks": self.masks,
                "backgrounds": self.backgrounds,
                "c2w": self.cameras.c2w,
                "fovy_deg": self.cameras.fovy_deg,
                **{name: values for name, values in known.items() if values is not None},
            },
        )

    @staticmethod
    def are_in(state: State) -> bool:
        return "views/images" in state

    @staticmethod
    def load(state: State) -> Views:
        return Views(
            images=state["views/images"],
            masks=state["views/masks"],
            backgrounds=state["views/backgrounds"],
            cameras=Cameras(c2w=state["views/c2w"], fovy_deg=state["views/fovy_deg"]),
            depth=state.get("views/depth"),
            normals=state.get("views/normals"),
        )

    @staticmethod
    def cat(parts: list[Views]) -> Views:
        """One after another; depth and normals that only some of them have are unknown for the others."""

        def known(name: str, channels: int) -> Tensor | None:
            found = [getattr(part, name) for part in parts]
            if all(values is None for values in found):
                return None
            blank = [part.masks.new_zeros(len(part), channels, *part.masks.shape[2:]) for part in parts]
            return torch.cat([b if v is None else v for b, v in zip(blank, found, strict=True)])

        return Views(
            images=torch.cat([p.images for p in parts]),
            masks=torch.cat([p.masks for p in parts]),
            backgrounds=torch.cat([p.backgrounds for p in parts]),
            cameras=Cameras.cat([p.cameras for p in parts]),
            depth=known("depth", 1),
            normals=known("normals", 3),
        )

    @staticmethod
    def from_images(
        images: Tensor,
        cameras: Cameras,
        *,
        threshold: float = 0.06,
        depth: Tensor | None = None,
        normals: Tensor | None = None,
    ) -> Views:
        """Separate `images [V, 3, H, W]` of one plain background from it.

        threshold: as of `gen3d.masks.soft_mask`; raised where the background itself is uneven. Where nothing but
        background is seen, the pictures are made even.
        depth, normals: `[V, 3, H, W]` of the same views, as `gen3d.domain_pictures` draws them; they count inside the
        outline, not on it, where a picture mixes what is near with what is far.
        """
        background, noise = plain_background(images)
        raised = min(_ABOVE_NOISE * noise, _AT_MOST * threshold)
        masks = soft_mask(images, background, max(threshold, raised))
        # A pixel whose neighbours are all the object's shows nothing of the background.
        inside = -F.max_pool2d(-masks, 3, stride=1, padding=1) > _INSIDE
        return Views(
            images=torch.where(masks > 0.0, images, background[:, None, None]),
            masks=masks,
            backgrounds=background.expand(len(images), 3).contiguous(),
            cameras=cameras,
            depth=None if depth is None else depth_of(depth, cameras) * inside,
            normals=None if normals is None else normals_of(normals) * inside,
        )
