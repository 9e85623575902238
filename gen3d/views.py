"""Views in a State: pictures with their cameras, masks and backgrounds.

Legend: K views kept, H x W pixels. Tensors `views/images [K, 3, H, W]`, `views/masks [K, 1, H, W]`,
`views/backgrounds [K, 3]`, `views/c2w [K, 4, 4]`, `views/fovy_deg [K]`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gen3d.cameras import Cameras
from gen3d.masks import plain_background, soft_mask
from gen3d.state import State

# A mask's threshold is at least so many times the unevenness of the background, up to so many times what was asked.
_ABOVE_NOISE, _AT_MOST = 2.0, 2.5


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
    def are_in(state: State) -> bool:
        return "views/images" in state

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
        """Separate `images [V, 3, H, W]` of one plain background from it.

        threshold: as of `gen3d.masks.soft_mask`; raised where the background itself is uneven. Where nothing but
        background is seen, the pictures are made even.
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
