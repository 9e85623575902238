"""The `backbone` config group, and what a run says about the backbone it used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from experiments.errors import one_line
from experiments.run.settings import BackboneName, Text
from gen3d.prompts import is_blank

if TYPE_CHECKING:
    import torch

    from diffusion.backbone import Backbone
    from diffusion.facts import BackboneFacts
    from experiments.run.run import Run


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Which backbone, and how it is loaded.

    name: a name of `diffusion.registry` or a folder in diffusers layout. revision: commit or branch on the hub.
    dtype: number format of the weights. offline: never ask the network.
    """

    name: BackboneName
    revision: Text | None = None
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    offline: bool = False

    def facts(self) -> BackboneFacts | None:
        """What is known of it before it is loaded; None where nothing is on this machine yet."""
        from diffusion import backbone

        return backbone.facts(self.name, revision=self.revision)

    def typed(self) -> list[str]:
        """These settings as they are typed at the command line."""
        revision = [f"backbone.revision={self.revision}"] if self.revision else []
        offline = f"backbone.offline={str(self.offline).lower()}"
        return [f"backbone={self.name}", f"backbone.dtype={self.dtype}", offline, *revision]

    def build(self, device: torch.device | str = "cpu") -> Backbone:
        """Load it."""
        import torch

        from diffusion import backbone

        kind = getattr(torch, self.dtype)
        return backbone.load(
            self.name, revision=self.revision, device=device, dtype=kind, offline=self.offline
        )


def load_into(run: Run, config: BackboneConfig) -> Backbone:
    """Load the backbone as a timed phase of `run`, and record its id, revision and weights there.

    UserError when the run was begun with other weights of that name.
    """
    from experiments.run.fingerprint import fingerprint

    announce_slowness(run, config)
    with run.phase("load"):
        loaded = config.build(run.device)
        weights = fingerprint(loaded)
    run.made_with(f"backbone {loaded.name!r}", weights)
    run.facts["backbone"] = {**describe(loaded, config), "weights_sha256": weights}
    return loaded


def describe(backbone: Backbone, config: BackboneConfig) -> dict[str, Any]:
    """A backbone for the report: id, revision, dtype. A local folder is named by its last part only."""
    return {
        "name": backbone.name,
        "revision": backbone.revision,
        "dtype": config.dtype,
        "num_views": backbone.num_views,
    }


def announce_slowness(run: Run, config: BackboneConfig) -> None:
    """Say, and put into the report, that a CPU is slow at what saves memory on a GPU."""
    if run.device.type == "cpu" and config.dtype == "float16":
        run.note(
            "backbone.dtype=float16 is many times slower than float32 on a CPU, which computes halves one by one; "
            "leave it out, or give device=cuda"
        )


def check_prompt(prompt: str) -> None:
    """Refuse a prompt with nothing in it, or nothing that shows."""
    if is_blank(prompt):
        raise ValueError('prompt is empty; say what to make, for example prompt="a red mushroom"')


def announce_left_out(run: Run, backbone: Backbone, **left_out: str) -> None:
    """Say, and put into the report, what the text encoder has no room for at the end of each long prompt."""
    for name, rest in left_out.items():
        if rest:
            # A rest that begins within a word, as of a script without spaces, is counted in characters.
            unit, count = ("word", len(rest.split())) if rest[0].isspace() else ("character", len(rest))
            end = f"{unit} is" if count == 1 else f"{count} {unit}s are"
            run.note(
                f"{name} is longer than the {backbone.max_tokens} tokens the text encoder of {backbone.name} reads: "
                f"its last {end} left out: {one_line(rest, 200)!r}"
            )
