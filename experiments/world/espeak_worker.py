"""A program of its own that speaks one utterance with espeak-ng: JSON in, JSON and samples out.

espeak-ng is under the GPL, so this file is run, never imported, by anything but its tests; it imports nothing of
Galatea. A fresh process an utterance and a fixed seed make the bytes depend on the request alone.

In: {"text", "voice", "rate", "pitch", "range", "seed"} on standard input. Out: one line of JSON with "rate" in Hz and
"events" ([[sample, IPA name], ...]), then the samples as 16-bit little-endian.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import sys
from pathlib import Path

SYNCHRONOUS, PHONEME_EVENTS_IN_IPA = 2, 1 | 2
EVENT_END, EVENT_PHONEME = 0, 7
UTF8 = 1
RATE, PITCH, RANGE = 1, 3, 4


class _Identity(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Identity),
    )


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


def speak(request: dict) -> tuple[int, list[tuple[int, str]], bytes]:
    """Sample rate, phoneme events and samples of one request."""
    espeakng_loader = importlib.import_module("espeakng_loader")  # extra: world
    data = Path(espeakng_loader.get_data_path())
    variant = request["voice"].partition("+")[2]
    # An unknown variant would be left out without a word.
    if variant and not (data / "voices" / "!v" / variant).is_file():
        raise ValueError(f"espeak-ng has no voice variant {variant!r}")
    library = ctypes.CDLL(str(espeakng_loader.get_library_path()))
    rate = library.espeak_Initialize(SYNCHRONOUS, 0, str(data).encode(), PHONEME_EVENTS_IN_IPA)
    if rate <= 0:
        raise ValueError(f"espeak-ng does not start with the data in {data}")
    samples = bytearray()
    events: list[tuple[int, str]] = []

    def receive(wave, count, event) -> int:
        if wave and count > 0:
            samples.extend(ctypes.string_at(wave, 2 * count))
        i = 0
        while event[i].type != EVENT_END:
            if event[i].type == EVENT_PHONEME:
                raw = event[i].id.string  # cut after eight bytes, perhaps within a letter
                events.append((event[i].sample, raw.decode("utf-8", "ignore")))
            i += 1
        return 0

    callback = _Callback(receive)  # kept alive until espeak is done
    library.espeak_SetSynthCallback(callback)
    if library.espeak_SetVoiceByName(request["voice"].encode()) != 0:
        raise ValueError(f"espeak-ng has no voice {request['voice']!r}")
    for parameter, name in ((RATE, "rate"), (PITCH, "pitch"), (RANGE, "range")):
        library.espeak_SetParameter(parameter, int(request[name]), 0)
    library.espeak_ng_SetRandSeed(ctypes.c_long(int(request["seed"])))
    text = request["text"].encode()
    library.espeak_Synth(text, len(text) + 1, 0, 0, 0, UTF8, None, None)
    library.espeak_Synchronize()
    return rate, events, bytes(samples)


def main() -> int:
    """Serve the request on standard input."""
    try:
        rate, events, samples = speak(json.load(sys.stdin))
    except (ValueError, OSError, ImportError, AttributeError) as error:
        print(error, file=sys.stderr)
        return 2
    sys.stdout.buffer.write(json.dumps({"rate": rate, "events": events}).encode() + b"\n" + samples)
    return 0


if __name__ == "__main__":
    sys.exit(main())
