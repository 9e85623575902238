"""MediaPipe's .tflite files to the .safetensors files in this folder; see README.md for how to call it.

Networks keep the numbers of the files, half precision included; only the order of axes changes. Needs the packages
`tflite` and `safetensors`, and nothing of the project.
"""
# pyright: reportMissingImports=false

import argparse
from pathlib import Path

import numpy as np
import tflite
from safetensors.numpy import save_file

_CONSTANTS = {
    tflite.BuiltinOperator.CONV_2D: (1, 2),
    tflite.BuiltinOperator.DEPTHWISE_CONV_2D: (1, 2),
    tflite.BuiltinOperator.PRELU: (1,),
}


def operators(path: Path) -> list[tuple[str, list[np.ndarray]]]:
    """(kind, constants) of every convolution (weight, bias) and PReLU (slopes), in the file's order, PyTorch's axes."""
    model = tflite.Model.GetRootAsModel(path.read_bytes(), 0)
    graph = model.Subgraphs(0)
    from_half, found = {}, []
    for index in range(graph.OperatorsLength()):
        operator = graph.Operators(index)
        code = model.OperatorCodes(operator.OpcodeIndex())
        kind = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        if kind == tflite.BuiltinOperator.DEQUANTIZE:
            from_half[operator.Outputs(0)] = operator.Inputs(0)
        if kind in _CONSTANTS:
            places = [operator.Inputs(i) for i in _CONSTANTS[kind]]
            arrays = [_array(model, graph.Tensors(from_half.get(place, place))) for place in places]
            if kind == tflite.BuiltinOperator.CONV_2D:
                found.append(("conv", [arrays[0].transpose(0, 3, 1, 2), arrays[1]]))
            elif kind == tflite.BuiltinOperator.DEPTHWISE_CONV_2D:
                found.append(("depthwise", [arrays[0].transpose(3, 0, 1, 2), arrays[1]]))
            else:
                found.append(("prelu", [arrays[0].ravel()]))
    return found


def _array(model: tflite.Model, tensor: tflite.Tensor) -> np.ndarray:
    kind = {tflite.TensorType.FLOAT32: np.float32, tflite.TensorType.FLOAT16: np.float16}[tensor.Type()]
    data = model.Buffers(tensor.Buffer()).DataAsNumpy()
    return data.view(kind).reshape(tensor.ShapeAsNumpy())


def named(found: list[tuple[str, list[np.ndarray]]], names: list[str]) -> dict[str, np.ndarray]:
    """The constants under the names of the modules that hold them."""
    assert len(found) == len(names), (len(found), len(names))
    out = {}
    for name, (_, arrays) in zip(names, found, strict=True):
        for part, array in zip(("weight", "bias"), arrays, strict=False):
            out[f"{name}.{part}"] = np.ascontiguousarray(array)
    return out


def block(name: str, *, prelu: bool) -> list[str]:
    """Modules of a BlazeBlock in the order in which they are computed."""
    return [f"{name}.depthwise", f"{name}.pointwise"] + ([f"{name}.activation"] if prelu else [])


def blaze_face(path: Path) -> dict[str, np.ndarray]:
    """avatar.blaze_face.BlazeFace's state."""
    names = ["stem"] + [name for i in range(16) for name in block(f"blocks.{i}", prelu=False)]
    return named(operators(path), [*names, "scores.0", "scores.1", "boxes.0", "boxes.1"])


def face_landmarks(path: Path) -> dict[str, np.ndarray]:
    """avatar.face_landmarks.FaceLandmarks' state."""
    names = ["stem", "activation"] + [n for i in range(14) for n in block(f"blocks.{i}", prelu=True)]
    names += block("points.0", prelu=True) + block("points.1", prelu=True)
    # From here on the file's two branches take turns.
    presence = [
        *block("presence.0", prelu=True),
        "presence.1",
        "presence.2",
        *block("presence.3", prelu=True),
    ]
    points = [*block("points.2", prelu=True), "points.3", "points.4", *block("points.5", prelu=True)]
    turns = zip([*presence, "presence.4"], [*points, "points.6"], strict=True)
    return named(operators(path), [*names, *(name for pair in turns for name in pair)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", type=Path, help="the folder mediapipe/modules of the unpacked wheel")
    modules, here = parser.parse_args().modules, Path(__file__).parent
    save_file(
        blaze_face(modules / "face_detection/face_detection_short_range.tflite"),
        here / "blaze_face_short_range.safetensors",
    )
    save_file(
        face_landmarks(modules / "face_landmark/face_landmark.tflite"), here / "face_landmarks.safetensors"
    )
