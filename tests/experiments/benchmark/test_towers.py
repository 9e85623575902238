"""VAE and caption retrieval on held-out pictures, and the untrained twin."""

from __future__ import annotations

import math

import pytest
import torch

from diffusion.backbone import Backbone
from diffusion.backbone_folder import Parts
from experiments.benchmark.gathered_pictures import Album
from experiments.benchmark.readback import Reader
from experiments.benchmark.towers import autoencode, caption_retrieval, own_ranks, reconstruction, shrunk
from experiments.benchmark.untrained import untrained
from experiments.run.fingerprint import fingerprint
from experiments.world.dataset import Shards
from tests.diffusion.models import make_parts
from video.pixels import from_uint8


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    index = {"galatea": {"num_views": 2, "image_size": 64}}
    return Backbone(Parts(index=index, image_mean=None, image_std=None, **make_parts(seed=5)), name="random")


def shards(images: torch.Tensor, captions: list[str], kinds: list[str]) -> Shards:
    count = len(captions)
    return Shards(
        images=images[:, None],
        masks=torch.full_like(images[:, None, :1], 255),
        c2w=torch.eye(4).expand(count, 1, 4, 4),
        fovy_deg=torch.full((count,), 40.0),
        captions=captions,
        kinds=kinds,
    )


def test_psnr_is_a_mean_over_pictures_and_kinds() -> None:
    images = torch.full((3, 3, 8, 8), 102, dtype=torch.uint8)
    pictures = shards(images, ["a", "b", "c"], ["thing", "head", "thing"])
    made = from_uint8(images)
    made[0] += 0.1
    made[1] += 0.01
    made[2] += 0.001
    found = reconstruction(made, pictures)
    assert found == {
        "psnr_db": pytest.approx(40.0, abs=1e-3),
        "psnr_db_thing": pytest.approx(40.0, abs=1e-3),
        "psnr_db_head": pytest.approx(40.0, abs=1e-3),
    }


def test_autoencoding_is_whole_whatever_the_batch(backbone: Backbone) -> None:
    images = torch.rand(35, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    made = autoencode(backbone, images)
    assert made.shape == images.shape
    assert torch.allclose(made[33:], autoencode(backbone, images[33:]), atol=1e-5)
    assert 0.0 <= float(made.min()) <= float(made.max()) <= 1.0


def test_shrinking_loses_detail_only() -> None:
    flat = torch.rand(2, 3, 1, 1, generator=torch.Generator().manual_seed(0)).expand(2, 3, 32, 32)
    assert torch.allclose(shrunk(flat, 4), flat, atol=1e-6)
    checks = (torch.arange(32)[:, None] + torch.arange(32)) % 2 * torch.ones(1, 3, 1, 1)
    assert torch.allclose(shrunk(checks, 4), torch.full_like(checks, 0.5), atol=1e-6)


def test_own_ranks() -> None:
    similarity = torch.tensor([[0.9, 0.1, 0.1], [0.5, 0.4, 0.3], [0.2, 0.2, 0.2]])
    assert own_ranks(similarity).tolist() == [0, 1, 2]


def test_retrieval_takes_one_picture_a_caption(backbone: Backbone) -> None:
    images = torch.randint(0, 255, (4, 3, 64, 64), generator=torch.Generator().manual_seed(0)).byte()
    pictures = shards(images, ["a red cube", "a red cube", "a ball", "a cat"], ["thing"] * 4)
    found = caption_retrieval(Reader(backbone), pictures, 100)
    assert (found["captions"], found["chance"], found["top5"]) == (3.0, 1 / 3, 1.0)
    assert found["top1"] in {0.0, 1 / 3, 2 / 3, 1.0} or math.isclose(found["top1"] % (1 / 3), 0, abs_tol=1e-6)
    assert caption_retrieval(Reader(backbone), pictures, 1)["top1"] == 1.0


def test_the_untrained_twin_differs_in_its_unet_only(backbone: Backbone) -> None:
    state = torch.get_rng_state()
    first, again, other = untrained(backbone, 0), untrained(backbone, 0), untrained(backbone, 1)
    assert torch.equal(state, torch.get_rng_state())
    assert first.vae is backbone.vae
    shapes = {name: each.shape for name, each in backbone.unet.state_dict().items()}
    assert {name: each.shape for name, each in first.unet.state_dict().items()} == shapes
    assert not any(each.requires_grad for each in first.unet.parameters())

    def predict(which: Backbone) -> torch.Tensor:
        latents = torch.ones(1, 2, 4, 8, 8)
        cameras = torch.eye(4).expand(1, 2, 4, 4)
        with torch.no_grad():
            return which.predict(latents, 500, which.encode_prompt(["a cat"]), camera=cameras)

    assert torch.equal(predict(first), predict(again))
    assert not torch.allclose(predict(first), predict(other))
    assert not torch.allclose(predict(first), predict(backbone))


def test_fingerprints_tell_weights_apart(backbone: Backbone) -> None:
    assert fingerprint(backbone) == fingerprint(backbone)
    assert (
        len({fingerprint(each) for each in (backbone, untrained(backbone, 0), untrained(backbone, 1))}) == 3
    )


def test_album_keeps_bytes_and_depth() -> None:
    album = Album()
    images = torch.tensor([-0.2, 0.5, 2.0]).view(1, 3, 1, 1).expand(2, 3, 4, 4)
    album.put("samples", 3, images)
    album.put_depth("depth", 3, torch.full((2, 4, 4), 3.25))
    kept = Album(album.tensors)
    assert kept.get("samples", 3)[0, :, 0, 0].tolist() == pytest.approx([0.0, 128 / 255, 1.0])
    assert float(kept.get("depth", 3).mean()) == 3.25
    assert kept.has("samples", 3)
    assert not kept.has("samples", 2)
    with pytest.raises(KeyError, match="samples"):
        kept.get("samples", 2)
