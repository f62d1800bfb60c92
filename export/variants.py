"""The trained encoder -> ONNX: float32, and what is made of it for the runtime.

Every variant takes any batch size, carries the signal contract in its metadata and has passed
`onnx.checker` with full shape inference.
"""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from string import ascii_letters

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from edge.bundle import SIGNAL_KEY
from edge.encoder import INPUT, OUTPUT
from edge.spec import SIGNAL
from training.model import (
    SPECTRUM_BIN_HZ,
    SPECTRUM_STEP,
    ImuEncoder,
    Spectrum,
)

OPSET = 20
"""Understood by every onnxruntime since 1.17 (January 2024); the first with a Gelu of its own: one
node instead of five."""

IR_VERSION = 9
"""The ONNX file format of opset 20's time, for the same reason."""

_QUANTIZED = ["MatMul"]
"""Only products on tokens are computed in int8, all but the first. Patches and waves see the
signal, whose range would cost it its small motions; a product on one vector a window (Gemm: the
spectrum's and the last) takes longer to quantize than it saves, and the last one's error goes
straight into the embedding."""

_SMALLEST_STORED = 16
"""Constants with fewer elements stay as they are: a node to unpack them would take more room."""

SPECTRUM_BASIS: NDArray[np.float32] = Spectrum(width=1).basis.numpy()

_LARGE = 1024
"""Constants with this many elements are stored in int8, smaller ones in float16."""


_LEAST_SCALE = 6.2e-5
"""Of a row's int8 steps: the least number that float16 holds in full precision."""


def export_float32(model: ImuEncoder, path: Path) -> None:
    """Write the encoder as it was trained, constants folded."""
    example = torch.zeros(2, len(SIGNAL.channels), SIGNAL.window_samples)
    with _quiet():
        program = torch.onnx.export(
            model.eval(),
            (example,),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes={"imu": {0: torch.export.Dim("batch")}},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        with tempfile.TemporaryDirectory() as folder:
            raw = Path(folder) / "raw.onnx"
            program.save(str(raw), external_data=False)
            graph = onnx.load(str(raw))
            # torch notes every intermediate shape; those of transposed weights are stale after
            # the optimisation below and make onnx's own shape inference fail.
            del graph.graph.value_info[:]
            onnx.save(graph, str(raw))
            quant_pre_process(str(raw), str(path), skip_symbolic_shape=True)
    _finish(path)


def quantize_int8_dynamic(float32: Path, path: Path) -> None:
    """Weights int8 per channel, activations int8 by what each window holds."""
    with _quiet():
        quantize_dynamic(
            str(float32),
            str(path),
            op_types_to_quantize=_QUANTIZED,
            nodes_to_exclude=_kept_in_float32(float32),
            weight_type=QuantType.QInt8,
            per_channel=True,
        )
    _store_small(path)
    _finish(path)


def _kept_in_float32(path: Path) -> list[str]:
    """Nodes that are not quantized, by the names that onnxruntime's quantizer gives them.

    The Gemm nodes, which it takes apart into MatMul and Add before it looks at operators' types;
    the products of the signal with the spectrum's waves and the patches' weights; and the first of
    all tokens: with it in float32 a third fewer windows changed their best label (1,500 windows of
    training corpora: 0.9893 the same, then 0.9933).
    """
    graph = onnx.load(str(path)).graph
    weights = {tensor.name for tensor in graph.initializer}
    gemm = [node.name for node in graph.node if node.op_type == "Gemm"]
    products = [n.name for n in graph.node if n.op_type == "MatMul" and n.input[1] in weights]
    return [*gemm, *(f"{name}_MatMul" for name in gemm), *products[:3]]


def quantize_int8_static(float32: Path, path: Path, windows: NDArray[np.float32]) -> None:
    """Weights int8 per channel, activations int8 by ranges seen on calibration windows (QDQ).

    Args:
        windows: (N, 6, 1000) of training-role corpora.
    """
    with _quiet():
        quantize_static(
            str(float32),
            str(path),
            _Calibration(windows),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_QUANTIZED,
            nodes_to_exclude=_kept_in_float32(float32),
            weight_type=QuantType.QInt8,
            per_channel=True,
            # Products of two activations (attention) stay float32.
            extra_options={"MatMulConstBOnly": True},
        )
    _store_small(path)
    _finish(path)


def _store_small(path: Path) -> None:
    """Keep what is still computed in float32 as int8 or float16 in the file.

    The unpacking nodes hold constants only, so onnxruntime folds them when it loads the graph: they
    make the file smaller and cost nothing per window.
    """
    model = onnx.load(str(path))
    graph = model.graph
    unpacking: list[onnx.NodeProto] = []
    for tensor in list(graph.initializer):
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < _SMALLEST_STORED:
            continue
        if np.array_equal(values, SPECTRUM_BASIS):
            packed, nodes = _worked_out(tensor.name)
        elif values.size >= _LARGE:
            packed, nodes = _in_int8(tensor.name, values)
        else:
            packed, nodes = _in_float16(tensor.name, values)
        graph.initializer.remove(tensor)
        graph.initializer.extend(packed)
        unpacking += nodes
    computing = list(graph.node)
    del graph.node[:]
    graph.node.extend(unpacking + computing)
    _shorten_names(graph)
    onnx.save(model, str(path))


def _worked_out(name: str) -> tuple[list[onnx.TensorProto], list[onnx.NodeProto]]:
    """The waves of the spectrum (`training.model.Spectrum`) as the formula that they come from: no
    constant in the file is as large that says as little."""
    coarse, waves = SPECTRUM_BASIS.shape
    step_rad = 2 * np.pi * SPECTRUM_BIN_HZ * SPECTRUM_STEP / SIGNAL.rate_hz
    hann_sum = (coarse - 1) / 2  # of the symmetric window
    constants = {
        "zero": np.array(0, np.float32),
        "one": np.array(1, np.float32),
        "steps": np.array(coarse, np.float32),
        "bins": np.array(waves // 2 + 1, np.float32),
        "step_rad": np.array(step_rad, np.float32),
        "size": np.array(coarse, np.int64),
        "amplitude": np.array(2 / hann_sum, np.float32),
        "column": np.array([1], np.int64),
    }
    node = onnx.helper.make_node
    called = {key: f"{name}_{key}" for key in constants}
    nodes = [
        node("Range", [called["zero"], called["steps"], called["one"]], [f"{name}_t"]),
        node("Range", [called["one"], called["bins"], called["one"]], [f"{name}_f"]),
        node("HannWindow", [called["size"]], [f"{name}_hann"], periodic=0),
        node("Mul", [f"{name}_hann", called["amplitude"]], [f"{name}_envelope"]),
        node("Unsqueeze", [f"{name}_envelope", called["column"]], [f"{name}_by_row"]),
        node("Unsqueeze", [f"{name}_t", called["column"]], [f"{name}_t_column"]),
        node("Mul", [f"{name}_f", called["step_rad"]], [f"{name}_rad"]),
        node("Mul", [f"{name}_t_column", f"{name}_rad"], [f"{name}_phase"]),
        node("Cos", [f"{name}_phase"], [f"{name}_cos"]),
        node("Sin", [f"{name}_phase"], [f"{name}_sin"]),
        node("Concat", [f"{name}_cos", f"{name}_sin"], [f"{name}_waves"], axis=1),
        node("Mul", [f"{name}_waves", f"{name}_by_row"], [name]),
    ]
    tensors = [onnx.numpy_helper.from_array(v, called[key]) for key, v in constants.items()]
    return tensors, nodes


def _in_float16(
    name: str, values: NDArray[np.float32]
) -> tuple[list[onnx.TensorProto], list[onnx.NodeProto]]:
    half = onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}_f16")
    cast = onnx.helper.make_node("Cast", [half.name], [name], to=onnx.TensorProto.FLOAT)
    return [half], [cast]


def _in_int8(
    name: str, values: NDArray[np.float32]
) -> tuple[list[onnx.TensorProto], list[onnx.NodeProto]]:
    """Rows (last axis) of int8 and a scale each, in float16: of a patch's weights, one for each
    channel, since m/s^2 and rad/s differ by far. Not a DequantizeLinear, which onnxruntime never
    folds."""
    peak = np.abs(values).max(axis=-1, keepdims=True)
    # A scale that float16 would round to 0 or to a coarse step is of weights that do nothing.
    scale = np.maximum(peak / 127, _LEAST_SCALE).astype(np.float16).astype(np.float32)
    codes = np.clip(np.rint(values / scale), -127, 127).astype(np.int8)
    rows = onnx.numpy_helper.from_array(codes, f"{name}_i8")
    scales, unpack = _in_float16(f"{name}_scale", scale)
    cast = onnx.helper.make_node("Cast", [rows.name], [f"{name}_f32"], to=onnx.TensorProto.FLOAT)
    scaled = onnx.helper.make_node("Mul", [f"{name}_f32", f"{name}_scale"], [name])
    return [rows, *scales], [cast, *unpack, scaled]


def _shorten_names(graph: onnx.GraphProto) -> None:
    """Two letters for each value inside the graph: the exporter's names are a tenth of a small
    file."""
    outer = {value.name for value in (*graph.input, *graph.output)} | {""}
    short: dict[str, str] = {}
    names = ("".join(letters) for letters in product(ascii_letters, repeat=2))

    def renamed(name: str) -> str:
        if name not in outer and name not in short:
            short[name] = next(names)
        return name if name in outer else short[name]

    for tensor in graph.initializer:
        tensor.name = renamed(tensor.name)
    for node in graph.node:
        node.name = ""
        node.input[:] = [renamed(name) for name in node.input]
        node.output[:] = [renamed(name) for name in node.output]
    del graph.value_info[:]


def convert_float16(float32: Path, path: Path) -> None:
    """All weights and activations float16; input and output stay float32."""
    with _quiet():
        graph = OnnxModel(convert_float_to_float16(onnx.load(str(float32)), keep_io_types=True))
        graph.topological_sort()  # the converter puts its casts last
    onnx.save(graph.model, str(path))
    _finish(path)


def torch_embeddings(model: ImuEncoder, windows: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, 6, 1000) -> (N, D), the reference that an exported encoder is compared with."""
    with torch.inference_mode():
        embeddings: torch.Tensor = model.eval()(torch.from_numpy(windows))
    return np.asarray(embeddings.numpy(), np.float32)


class _Calibration(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, windows: NDArray[np.float32]) -> None:
        self._windows = iter(windows)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """The next window as the graph's input."""
        window = next(self._windows, None)
        return None if window is None else {INPUT: window[None]}


def _finish(path: Path) -> None:
    """Drop what only the exporter needed, write the contract, check."""
    graph = onnx.load(str(path))
    used = {node.domain for node in graph.graph.node}
    kept = [o for o in graph.opset_import if o.domain == "" or o.domain in used]
    del graph.opset_import[:]
    graph.opset_import.extend(kept)
    for node in graph.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    del graph.graph.value_info[:]
    graph.ir_version = IR_VERSION
    onnx.helper.set_model_props(graph, {SIGNAL_KEY: json.dumps(SIGNAL.to_json())})
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, str(path))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's and onnxruntime's remarks on their own internals from the user."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
