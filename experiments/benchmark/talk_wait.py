"""How long a user waits for a talking portrait: `talk/quickstart` as typed, in a process of its own."""

from __future__ import annotations

import json
import threading
import time
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.benchmark.assets import reason_of, run_galatea
from experiments.run.files import write_json
from experiments.run.folder import REPORT
from experiments.run.images import save_png
from experiments.training.talking import portrait_box
from experiments.world.speech_sound import SAMPLE_RATE
from experiments.world.talking import Clip
from video.pixels import from_uint8


def waited(clip: Clip, settings: Sequence[str], folder: Path) -> dict[str, Any]:
    """`frames` of talk.mp4 of a clip's portrait and whole sound, the `seconds` from the start of the process to its
    end, and `frames_per_second`; or the `reason` why it failed, else ''. What was measured before is read back.

    settings: for the command line, beside portrait, audio and out.
    """
    record = folder / "waited.json"
    if record.is_file():
        return json.loads(record.read_text(encoding="utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    portrait, audio, out, log = (folder / name for name in ("portrait.png", "speech.wav", "talk", "talk.log"))
    save_png(from_uint8(clip.portrait), portrait)
    with wave.open(str(audio), "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", "not compressed"))
        file.writeframes((clip.audio * 32768).round().numpy().astype("<i2").tobytes())
    box = portrait_box(clip.portrait_landmarks)
    files = [f"portrait={portrait}", f"audio={audio}", f"out={out}", f"face_box=[{box.x},{box.y},{box.size}]"]
    began = time.monotonic()
    status = run_galatea(
        ["experiment=talk/quickstart", *settings, *files, "overwrite=true"], log, threading.Event()
    )
    seconds = time.monotonic() - began
    if status:
        return {"reason": reason_of(status, log)}
    frames = json.loads((out / REPORT).read_text(encoding="utf-8"))["metrics"]["frames"]
    found = {
        "reason": "",
        "frames": frames,
        "seconds": round(seconds, 3),
        "frames_per_second": frames / seconds,
    }
    write_json(record, found)
    return found
