"""Loading, saving, encoding, predicting, scoring: with real components and real files."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_pndm import PNDMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModelWithProjection

from diffusion import registry
from diffusion.backbone import Backbone, load, save_backbone
from diffusion.backbone_folder import files_of
from diffusion.conditioning import Conditioning
from diffusion.errors import BackboneError
from tests.diffusion.models import CAPTIONS, MAX_TOKENS, make_parts, make_unet, orbit


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def predict_once(backbone: Backbone) -> torch.Tensor:
    with torch.no_grad():
        conditioning = backbone.encode_prompt(["a red mushroom"])
        return backbone.predict(noise(1, 2, 4, 8, 8), 700, conditioning, camera=orbit(1, 2))


# ---- files


def test_round_trip_keeps_settings_and_weights_to_half_precision(
    backbone: Backbone, folder: Path, parts: dict[str, Any]
) -> None:
    assert (backbone.num_views, backbone.image_size, backbone.revision) == (4, 64, "r1")
    assert (backbone.latent_channels, backbone.downscale, backbone.max_tokens) == (4, 8, MAX_TOKENS)
    assert backbone.schedule.prediction_type == "v_prediction"
    assert backbone.schedule.zero_terminal_snr
    stored = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    assert parts["unet"].dtype == torch.float32  # saving changed nothing in the caller's hands
    for key, value in parts["unet"].state_dict().items():
        assert torch.equal(backbone.unet.state_dict()[key], value.half().float())
    assert not [file for file in folder.rglob("*") if file.suffix in (".bin", ".pt", ".pkl", ".ckpt")]


def test_saving_what_was_loaded_gives_the_same_model(backbone: Backbone, tmp_path: Path) -> None:
    save_backbone(
        tmp_path / "again",
        tokenizer=backbone.tokenizer,
        text_encoder=backbone.text_encoder,
        image_encoder=backbone.image_encoder,
        vae=backbone.vae,
        unet=backbone.unet,
        scheduler=backbone.scheduler,
        num_views=backbone.num_views,
        image_size=backbone.image_size,
    )
    again = load(tmp_path / "again")
    assert again.revision is None
    assert torch.equal(predict_once(again), predict_once(backbone))
    images = noise(1, 3, 64, 64).sigmoid()
    assert torch.equal(again.encode(images), backbone.encode(images))
    assert torch.equal(again.embed_image(images), backbone.embed_image(images))


def test_parts_are_replaced_one_at_a_time(copied: Path, backbone: Backbone) -> None:
    save_backbone(copied, unet=make_unet(seed=5), revision="r2")
    changed = load(copied)
    assert (changed.revision, changed.num_views) == ("r2", 4)
    assert not torch.equal(predict_once(changed), predict_once(backbone))
    assert torch.equal(changed.encode_prompt(CAPTIONS).embeds, backbone.encode_prompt(CAPTIONS).embeds)
    assert sorted(path.name for path in copied.iterdir()) == sorted(
        ["image_encoder", "model_index.json", "scheduler", "text_encoder", "tokenizer", "unet", "vae"]
    )


def test_two_backbones_share_nothing(folder: Path) -> None:
    first, second = load(folder), load(folder)
    before = predict_once(second)
    with torch.no_grad():
        for parameter in first.unet.parameters():
            parameter.mul_(2.0)
    first.scheduler.set_timesteps(7)
    assert torch.equal(predict_once(second), before)
    assert second.scheduler.num_inference_steps is None


def test_half_precision_variants_and_vocab_files_of_public_folders_load(
    copied: Path, backbone: Backbone
) -> None:
    for file in [*copied.rglob("*.safetensors")]:
        file.rename(file.with_name(file.stem + ".fp16.safetensors"))
    tokenizer = json.loads((copied / "tokenizer" / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    (copied / "tokenizer" / "tokenizer.json").unlink()
    (copied / "tokenizer" / "vocab.json").write_text(json.dumps(tokenizer["vocab"]), encoding="utf-8")
    merges = "\n".join(" ".join(merge) for merge in tokenizer["merges"])
    (copied / "tokenizer" / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    index = json.loads((copied / "model_index.json").read_text())
    index.pop("galatea")
    (copied / "model_index.json").write_text(json.dumps(index))
    loaded = load(copied)
    assert (loaded.num_views, loaded.image_size) == (1, 64)
    assert loaded.unet.dtype == torch.float32
    assert torch.equal(loaded.encode_prompt(CAPTIONS).embeds, backbone.encode_prompt(CAPTIONS).embeds)


def shard(part: Path, variant: str = "") -> Path:
    """Put the weights of a part into two files, as large public models have them; returns the index."""
    (file,) = part.glob("*.safetensors")
    stem, tensors = file.name.partition(".")[0], load_file(file)
    names = sorted(tensors)
    places = {name: f"{stem}{variant}-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(names)}
    for place in set(places.values()):
        save_file(
            {n: tensors[n] for n in names if places[n] == place}, part / place, metadata={"format": "pt"}
        )
    file.unlink()
    index = part / f"{stem}.safetensors.index{variant}.json"
    total = sum(tensor.nbytes for tensor in tensors.values())
    index.write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": places}))
    return index


@pytest.mark.parametrize("variant", ["", ".fp16"])
def test_weights_in_several_files_load(copied: Path, variant: str) -> None:
    whole = load(copied)
    for part in ("unet", "text_encoder", "vae"):
        shard(copied / part, variant)
    loaded = load(copied)
    for part in ("unet", "text_encoder", "vae"):
        found = getattr(loaded, part).state_dict()
        for name, value in getattr(whole, part).state_dict().items():
            assert torch.equal(found[name], value), name
    assert all(file in files_of(copied) for file in copied.glob("*/*-of-*.safetensors"))


def test_shards_that_are_missing_damaged_or_elsewhere_are_named(copied: Path) -> None:
    index = shard(copied / "unet")
    second = copied / "unet" / "diffusion_pytorch_model-00002-of-00002.safetensors"
    content = second.read_bytes()
    second.write_bytes(content[:-9])
    with pytest.raises(BackboneError, match=r"00002-of-00002\.safetensors is damaged or cut short"):
        load(copied)
    second.unlink()
    with pytest.raises(
        BackboneError, match=r"missing: unet/diffusion_pytorch_model-00002-of-00002\.safetensors"
    ):
        load(copied)
    for places in ({"x": "../../secret.safetensors"}, {"x": "weights.bin"}, {}, "none"):
        index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
        with pytest.raises(
            BackboneError, match=r"index\.json must have a 'weight_map' that names safetensors"
        ):
            load(copied)


def test_a_folder_gives_its_name_and_not_its_place(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(copied).name == copied.name
    monkeypatch.chdir(copied)
    assert load(".").name == copied.name


def test_schedulers_of_other_kinds_are_read(copied: Path) -> None:
    save_backbone(
        copied,
        scheduler=PNDMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True
        ),
    )
    schedule = load(copied).schedule
    assert schedule.prediction_type == "epsilon"
    assert float(schedule.alpha(999)) == pytest.approx(0.0682, abs=1e-4)
    save_backbone(copied, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0))
    assert load(copied).schedule.prediction_type == "flow"


# ---- text


def test_prompts_of_all_kinds_are_encoded(backbone: Backbone) -> None:
    prompts = ["", "a red mushroom", "A  RED\nMushroom", "\U0001f600 ../'\"=,", "x" * 10_000]
    conditioning = backbone.encode_prompt(prompts)
    assert conditioning.embeds.shape == (5, MAX_TOKENS, 32)
    assert conditioning.pooled.shape == (5, 24)
    assert conditioning.embeds.isfinite().all()
    assert torch.equal(conditioning.embeds[1], conditioning.embeds[2])  # case and white space do not matter
    assert not torch.equal(conditioning.embeds[0], conditioning.embeds[3])
    with pytest.raises(ValueError, match=r"write \[prompt\]"):
        backbone.encode_prompt("a red mushroom")


def test_a_long_prompt_is_cut_between_words_and_keeps_its_suffix(backbone: Backbone) -> None:
    words = MAX_TOKENS - 2  # the two special tokens
    assert backbone.shorten("") == ("", "")
    assert backbone.shorten("red " * words) == ("red " * words, "")
    assert backbone.shorten("red " * (words + 7)) == (("red " * words)[:-1], " " + "red " * 7)
    assert backbone.shorten("red " * (words - 2), " red red") == ("red " * (words - 2), "")
    assert backbone.shorten("red " * words, " red red") == (("red " * (words - 2))[:-1], " red red ")
    long, cut = backbone.encode_prompt(["red " * (words + 7)]), backbone.encode_prompt(["red " * words])
    assert torch.equal(long.embeds, cut.embeds)
    assert backbone.shorten("red", " red" * words) == ("", "red")


@settings(max_examples=100)
@given(
    st.text(st.sampled_from("ab,.' \n\u200b\u00e9\u7ea2\u26a1"), max_size=60),
    st.sampled_from(["", ", on a light blue background", ", side view"]),
)
def test_what_is_kept_is_as_much_as_fits(backbone: Backbone, prompt: str, suffix: str) -> None:
    def tokens(text: str) -> int:
        return len(backbone.tokenizer(text, verbose=False)["input_ids"])

    kept, rest = backbone.shorten(prompt, suffix)
    assert kept + rest == prompt
    if tokens(suffix) <= MAX_TOKENS:
        assert tokens(kept + suffix) <= MAX_TOKENS
    if rest:
        # One more word, or one more character of a word that is too long alone, is too much.
        more = re.match(r"\s*\S+" if rest[0].isspace() or not kept else r"\S", rest)
        assert more is not None or not rest.strip()
        if more is not None and kept:
            assert tokens(kept + more.group() + suffix) > MAX_TOKENS


def test_conditioning_slices_repeats_and_joins(backbone: Backbone) -> None:
    both = backbone.encode_prompt(CAPTIONS[:2])
    assert len(both) == 2
    assert torch.equal(both.repeat(2).embeds, both[[0, 0, 1, 1]].embeds)
    assert torch.equal(Conditioning.cat([both[:1], both[1:]]).pooled, both.pooled)


# ---- images


def test_latents_are_scaled_shifted_and_differentiable(backbone: Backbone) -> None:
    images = noise(2, 3, 3, 64, 64).sigmoid().requires_grad_()
    latents = backbone.encode(images)
    assert latents.shape == (2, 3, 4, 8, 8)
    raw: Any = backbone.vae.encode(images[1] * 2 - 1)
    torch.testing.assert_close(latents[1], (raw.latent_dist.mean - 0.1) * 0.5)
    decoded = backbone.decode(latents)
    assert decoded.shape == images.shape
    assert 0.0 <= float(decoded.detach().min()) <= float(decoded.detach().max()) <= 1.0
    expected: Any = backbone.vae.decode(raw.latent_dist.mean)
    torch.testing.assert_close(decoded[1], (expected.sample / 2 + 0.5).clamp(0, 1))
    decoded.sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in backbone.vae.parameters())
    with pytest.raises(ValueError, match="multiples of 8"):
        backbone.encode(torch.zeros(1, 3, 60, 64))


def test_clip_embeddings_are_unit_vectors_and_images_are_resized(backbone: Backbone) -> None:
    images = noise(2, 3, 96, 96).sigmoid().requires_grad_()
    embeds = backbone.embed_image(images)
    torch.testing.assert_close(embeds.norm(dim=-1), torch.ones(2))
    similarity = backbone.image_text_similarity(images, CAPTIONS)
    assert similarity.shape == (2, 3)
    torch.testing.assert_close(similarity, embeds @ backbone.embed_text(CAPTIONS).T)
    similarity.sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    pixels = torch.full((1, 3, 32, 32), 0.5)
    mean, std = (
        torch.tensor([0.48145466, 0.4578275, 0.40821073]),
        torch.tensor([0.26862954, 0.26130258, 0.27577711]),
    )
    tower: Any = backbone.image_encoder
    by_hand = tower((pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1)).image_embeds
    torch.testing.assert_close(backbone.embed_image(pixels), by_hand / by_hand.norm(dim=-1, keepdim=True))


def test_normalisation_constants_of_the_folder_are_used(copied: Path, backbone: Backbone) -> None:
    constants = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    (copied / "image_encoder" / "preprocessor_config.json").write_text(json.dumps(constants))
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    own = load(copied)
    tower: Any = own.image_encoder
    by_hand = tower(pixels * 2 - 1).image_embeds
    torch.testing.assert_close(own.embed_image(pixels), by_hand / by_hand.norm(dim=-1, keepdim=True))


def test_a_backbone_without_clip_towers_says_so(single: Backbone) -> None:
    with pytest.raises(BackboneError, match="has no image_encoder"):
        single.embed_image(torch.zeros(1, 3, 32, 32))
    with pytest.raises(BackboneError, match="must be a CLIPTextModelWithProjection"):
        single.embed_text(["a"])


# ---- prediction


@torch.no_grad()
def test_views_are_joined_by_a_multiview_backbone_only(backbone: Backbone, single: Backbone) -> None:
    latents = noise(2, 4, 4, 8, 8)
    t = torch.tensor([100, 900])
    changed = latents.clone()
    changed[0, 1] += 1.0
    conditioning = backbone.encode_prompt(CAPTIONS[:2])
    moved = backbone.predict(changed, t, conditioning, camera=orbit(2, 4))
    moved = (moved - backbone.predict(latents, t, conditioning, camera=orbit(2, 4))).abs().amax((2, 3, 4))
    assert (moved[0] > 1e-5).all()
    assert (moved[1] == 0).all()
    conditioning = single.encode_prompt(CAPTIONS[:2])
    together = single.predict(latents, t, conditioning)
    apart = [single.predict(latents[:, view], t, conditioning) for view in range(4)]
    torch.testing.assert_close(together, torch.stack(apart, 1), atol=1e-5, rtol=0)


@torch.no_grad()
def test_timesteps_and_text_per_object_or_per_view(backbone: Backbone) -> None:
    latents, cameras = noise(2, 3, 4, 8, 8), orbit(2, 3)
    conditioning = backbone.encode_prompt(CAPTIONS[:2])
    expected = backbone.predict(latents, torch.tensor([5, 5]), conditioning, camera=cameras)
    for t in (5, torch.tensor(5), torch.full((2, 3), 5)):
        got = backbone.predict(latents, t, conditioning.repeat(3), camera=cameras)
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)
    one = backbone.predict(latents, 5, conditioning[:1], camera=cameras)
    torch.testing.assert_close(one[0], expected[0], atol=1e-5, rtol=0)
    flat = backbone.predict(latents[:, 0], 5, conditioning, camera=cameras[:, 0])
    assert flat.shape == (2, 4, 8, 8)


def test_prediction_is_differentiable_in_the_latents_only(backbone: Backbone) -> None:
    latents = noise(1, 2, 4, 8, 8).requires_grad_()
    backbone.predict(
        latents, 500, backbone.encode_prompt(["a"]), camera=orbit(1, 2)
    ).square().sum().backward()
    assert latents.grad is not None
    assert (latents.grad.abs().amax((2, 3, 4)) > 0).all()
    assert all(parameter.grad is None for parameter in backbone.unet.parameters())


def test_wrong_shapes_and_cameras_are_refused(backbone: Backbone, single: Backbone) -> None:
    conditioning, latents = backbone.encode_prompt(["a"]), noise(2, 4, 4, 8, 8)
    with pytest.raises(ValueError, match="camera is missing"):
        backbone.predict(latents, 5, conditioning)
    with pytest.raises(ValueError, match="has no camera embedding"):
        single.predict(latents, 5, conditioning, camera=orbit(2, 4))
    with pytest.raises(ValueError, match=r"camera must be \[2, 4, 4, 4\]"):
        backbone.predict(latents, 5, conditioning, camera=orbit(2, 3))
    with pytest.raises(ValueError, match="conditioning must have 1, 2 or 8 rows, got 3"):
        backbone.predict(latents, 5, conditioning.repeat(3), camera=orbit(2, 4))
    with pytest.raises(ValueError, match=r"timestep must be \[\] or \[2\] or \[2, 4\], got \[3\]"):
        backbone.predict(latents, torch.tensor([1, 2, 3]), conditioning, camera=orbit(2, 4))
    with pytest.raises(ValueError, match="latents must be"):
        backbone.predict(latents[0, 0], 5, conditioning)


def test_bfloat16_weights_stay_hidden(folder: Path, backbone: Backbone) -> None:
    half = load(folder, dtype=torch.bfloat16)
    assert half.unet.dtype == half.vae.dtype == torch.bfloat16
    prediction = predict_once(half)
    assert prediction.dtype == torch.float32
    torch.testing.assert_close(prediction, predict_once(backbone), atol=0.05, rtol=0.1)
    assert half.decode(half.encode(torch.zeros(1, 3, 64, 64))).dtype == torch.float32
    assert half.embed_image(torch.zeros(1, 3, 64, 64)).dtype == torch.float32


# ---- what goes wrong


def one_line(excinfo: pytest.ExceptionInfo[BackboneError]) -> str:
    message = str(excinfo.value)
    assert "\n" not in message
    return message


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(BackboneError) as excinfo:
        load("tinny")
    message = one_line(excinfo)
    assert "'tinny' (did you mean 'tiny'?)" in message
    assert all(name in message for name in registry.names())


def test_a_folder_that_is_no_model_lists_what_is_missing(tmp_path: Path, copied: Path) -> None:
    with pytest.raises(BackboneError) as excinfo:
        load(tmp_path)
    for name in (
        "model_index.json",
        "tokenizer/",
        "text_encoder/config.json",
        "unet/diffusion_pytorch_model",
    ):
        assert name in one_line(excinfo)
    (copied / "vae" / "config.json").unlink()
    (copied / "unet" / "diffusion_pytorch_model.safetensors").rename(copied / "unet" / "weights.bin")
    with pytest.raises(
        BackboneError, match=r"missing: vae/config.json, unet/.* \(only pickled weights are there"
    ):
        load(copied)
    with pytest.raises(BackboneError, match="is not a folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(BackboneError, match="is not a folder"):
        load(copied / "model_index.json")


@pytest.mark.parametrize(
    "part", ["unet/diffusion_pytorch_model", "text_encoder/model", "image_encoder/model"]
)
@pytest.mark.parametrize("keep", [0.0, 0.001, 0.9])
def test_a_weight_file_cut_short_is_named(copied: Path, part: str, keep: float) -> None:
    file = copied / f"{part}.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(BackboneError) as excinfo:
        load(copied)
    assert f"{file} is damaged or cut short" in one_line(excinfo)


def test_garbage_in_place_of_weights_or_json_is_named(copied: Path) -> None:
    (copied / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"\xff" * 4096)
    with pytest.raises(BackboneError, match=r"vae.*safetensors is damaged"):
        load(copied)
    shutil.copy(copied / "unet" / "diffusion_pytorch_model.safetensors", copied / "vae")
    with pytest.raises(BackboneError, match=r"vae.* does not fit its config.json: \d+ tensors are missing"):
        load(copied)
    (copied / "model_index.json").write_text("{")
    with pytest.raises(BackboneError, match=r"model_index.json cannot be read as JSON"):
        load(copied)


@pytest.mark.parametrize("part", ["unet", "text_encoder", "tokenizer", "scheduler"])
def test_a_broken_config_is_one_line(copied: Path, part: str) -> None:
    name = {"tokenizer": "tokenizer.json", "scheduler": "scheduler_config.json"}.get(part, "config.json")
    (copied / part / name).write_text("{broken")
    with pytest.raises(BackboneError) as excinfo:
        load(copied)
    assert part in one_line(excinfo)


@pytest.mark.parametrize(
    ("part", "entry", "message"),
    [
        (
            "unet",
            ["diffusers", "SD3Transformer2DModel"],
            r"unet in .* is a SD3Transformer2DModel, allowed: UNet2D",
        ),
        ("text_encoder", ["os", "system"], r"text_encoder in .* is a system, allowed: CLIPTextModel"),
        ("galatea", {"num_views": 0}, r"num_views .* at least 1, got 0"),
        ("galatea", {"image_size": "big"}, r"image_size .* at least 1, got 'big'"),
        ("galatea", [], "'galatea' entry"),
    ],
)
def test_foreign_entries_in_the_index_are_refused(copied: Path, part: str, entry: Any, message: str) -> None:
    file = copied / "model_index.json"
    index = json.loads(file.read_text())
    index[part] = entry
    file.write_text(json.dumps(index))
    with pytest.raises(BackboneError, match=message):
        load(copied)


def test_parts_that_do_not_belong_together_are_refused(copied: Path, parts: dict[str, Any]) -> None:
    other = CLIPTextModelWithProjection(make_parts()["text_encoder"].config)
    other.config.eos_token_id = 1
    with pytest.raises(BackboneError, match="eos_token_id is 1, but the tokenizer's is"):
        save_backbone(copied, tokenizer=parts["tokenizer"], text_encoder=other)
    other.resize_token_embeddings(100)
    save_backbone(copied, text_encoder=other)
    with pytest.raises(BackboneError, match=r"has 5.. entries, but text_encoder only 100"):
        load(copied)


def test_revision_of_a_folder_must_be_its_own(folder: Path) -> None:
    assert load(folder, revision="r1").revision == "r1"
    with pytest.raises(BackboneError, match="holds revision 'r1', asked for 'r9'"):
        load(folder, revision="r9")


def test_offline_without_a_copy_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BackboneError) as excinfo:
        load("sd15", offline=True)
    message = one_line(excinfo)
    assert "offline=True" in message
    assert "stable-diffusion-v1-5/stable-diffusion-v1-5" in message
    assert "'tiny'" in message


def test_a_text_tower_of_its_own_compares_words_with_pictures(tmp_path: Path) -> None:
    parts, other = make_parts(), make_parts(seed=3)
    save_backbone(tmp_path / "one", **parts)
    save_backbone(tmp_path / "two", **parts, clip_text_encoder=other["text_encoder"])
    one, two = load(tmp_path / "one"), load(tmp_path / "two")
    # What the UNet reads is the same; what is compared with pictures is not.
    assert torch.equal(one.encode_prompt(CAPTIONS).embeds, two.encode_prompt(CAPTIONS).embeds)
    assert not torch.allclose(one.embed_text(CAPTIONS), two.embed_text(CAPTIONS))
    save_backbone(tmp_path / "three", **{**parts, "text_encoder": other["text_encoder"]})
    assert torch.equal(two.embed_text(CAPTIONS), load(tmp_path / "three").embed_text(CAPTIONS))
    # It serves where the UNet's own text encoder has no projection.
    plain = make_parts(projection=False)
    save_backbone(tmp_path / "four", **plain, clip_text_encoder=other["text_encoder"])
    assert load(tmp_path / "four").embed_text(["a"]).shape[0] == 1


def test_a_saved_part_does_not_tell_where_it_was_loaded_from(tmp_path: Path) -> None:
    tiny = load("tiny")
    save_backbone(tmp_path, vae=tiny.vae, unet=tiny.unet, text_encoder=tiny.text_encoder)
    files = sorted(tmp_path.rglob("config.json"))
    assert len(files) == 3
    for file in files:
        assert str(tiny.folder) not in file.read_text()
        assert "_name_or_path" not in file.read_text()
