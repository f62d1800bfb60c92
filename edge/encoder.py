"""The ONNX encoder: one call a window."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from firmware_bridge.errors import InputError

INPUT, OUTPUT = "imu", "embedding"
"""Names of the graph's input (B, 6, 1000) and output (B, D)."""


class Encoder:
    """An ONNX encoder on one CPU thread: a wearable's host has better uses for the others."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors only: its warnings are not the user's business
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's own exceptions share no base class
            raise InputError(f"{path}: onnxruntime cannot load it ({error})") from None
        names = [i.name for i in self._session.get_inputs()]
        if names != [INPUT]:
            raise InputError(f"{path}: takes {names}, expected one input named {INPUT!r}")
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map

    def embed(self, imu: NDArray[np.float32]) -> NDArray[np.float32]:
        """Embed one window.

        One at a time, because dynamic quantization scales activations by what is in the batch:
        in a batch, a window's embedding would depend on its neighbours.

        Args:
            imu: (6, 1000), rows ax ay az gx gy gz in m/s^2 and rad/s, NaN where missing.

        Returns:
            (D,) unit vector.
        """
        (output,) = self._session.run([OUTPUT], {INPUT: imu[None]})
        return np.asarray(output[0], np.float32)
