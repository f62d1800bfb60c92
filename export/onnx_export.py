"""The trained encoder -> ONNX, float32 and dynamically quantized to int8."""

from __future__ import annotations

import json
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process

from edge.bundle import SIGNAL_KEY
from edge.encoder import INPUT, OUTPUT
from edge.spec import SIGNAL
from training.model import ImuEncoder

OPSET = 18
"""Understood by every onnxruntime since 1.14 (2023)."""


def export_encoder(model: ImuEncoder, path: Path, quantize: bool) -> None:
    """Write the encoder as ONNX with a free batch size and the signal contract in its metadata."""
    model = model.eval()
    example = torch.zeros(2, len(SIGNAL.channels), SIGNAL.window_samples)
    with tempfile.TemporaryDirectory() as folder:
        float32 = Path(folder) / "float32.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of its own deprecated internals
            program = torch.onnx.export(
                model,
                (example,),
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes={"imu": {0: torch.export.Dim("batch")}},
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
        assert program is not None
        program.save(str(float32), external_data=False)
        result = float32
        if quantize:
            prepared = Path(folder) / "prepared.onnx"
            # torch notes every intermediate shape; those of transposed weights are stale after
            # the optimisation below and make onnx's own shape inference fail.
            plain = onnx.load(str(float32))
            del plain.graph.value_info[:]
            onnx.save(plain, str(float32))
            quant_pre_process(str(float32), str(prepared), skip_symbolic_shape=True)
            result = Path(folder) / "int8.onnx"
            # Weights per channel; only matrix products: the patch convolution sees raw signal,
            # whose range would cost it its small motions.
            quantize_dynamic(
                str(prepared),
                str(result),
                op_types_to_quantize=["MatMul", "Gemm"],
                weight_type=QuantType.QInt8,
                per_channel=True,
            )
        graph = onnx.load(str(result))
    onnx.helper.set_model_props(graph, {SIGNAL_KEY: json.dumps(SIGNAL.to_json())})
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, str(path))


def torch_embeddings(model: ImuEncoder, windows: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, 6, 1000) -> (N, D), the reference that an exported encoder is compared with."""
    with torch.inference_mode():
        embeddings: torch.Tensor = model.eval()(torch.from_numpy(windows))
    return np.asarray(embeddings.numpy(), np.float32)
