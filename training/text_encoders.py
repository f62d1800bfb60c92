"""The text encoders that training and export accept: the compact one, or a real CLIP."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge.text import (
    CLIP_DIM,
    COMPACT_NAME,
    PROJECTION_FILE,
    TextEncoder,
    load_compact_text_encoder,
)
from firmware_bridge.errors import InputError

if TYPE_CHECKING:
    import torch

_BATCH = 64


class OpenClipTextEncoder:
    """The text tower of a CLIP model in open_clip; made by `load_text_encoder`.

    Its tokenizer cuts a phrase at the model's context length (77 tokens for CLIP).
    """

    def __init__(self, name: str, model: Any, tokenizer: Callable[..., torch.Tensor]) -> None:
        self.name = name
        self._model = model
        self._tokenizer = tokenizer
        with np.load(PROJECTION_FILE, allow_pickle=False) as stored:
            self.centre: NDArray[np.float32] = stored["centre"].astype(np.float32)
        """(512,) the compact encoder's centre, which is the mean of real ViT-B/32 vectors. Other
        models of 512 dimensions have another mean; nothing here was measured with them."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, 512) un-centred unit vectors."""
        import torch

        out = np.zeros((len(texts), CLIP_DIM), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(texts), _BATCH):
                tokens = self._tokenizer(list(texts[start : start + _BATCH]))
                vectors = self._model.encode_text(tokens, normalize=True)
                out[start : start + len(tokens)] = vectors.float().numpy()
        return out


def load_text_encoder(name: str) -> TextEncoder:
    """Load a text encoder by name.

    * `minilm-clip-vitb32:1`: the compact encoder that ships with the package.
    * `open_clip:ARCH:PRETRAINED`: a model of open_clip with 512-d text vectors. PRETRAINED is one
      of its tags (downloads the weights), as in `open_clip:ViT-B-32:openai`, or the path of a
      local checkpoint. A file does not say which activation it was trained with: OpenAI's weights
      want `open_clip:ViT-B-32-quickgelu:PATH`.

    Raises:
        InputError: no such encoder, a package is missing, or the weights cannot be had.
    """
    if name == COMPACT_NAME:
        return load_compact_text_encoder()
    kind, _, rest = name.partition(":")
    arch, _, pretrained = rest.partition(":")
    if kind != "open_clip" or not arch or not pretrained:
        raise InputError(
            f"unknown text encoder {name!r}; accepted: {COMPACT_NAME!r}, or "
            "'open_clip:ARCH:PRETRAINED' such as 'open_clip:ViT-B-32:openai' or "
            "'open_clip:ViT-B-32-quickgelu:/path/to/checkpoint'"
        )
    return _load_open_clip(name, arch, pretrained)


def _load_open_clip(name: str, arch: str, pretrained: str) -> OpenClipTextEncoder:
    """Build ARCH with the weights PRETRAINED, in eval mode on the CPU."""
    try:
        import open_clip
    except ImportError as error:
        raise InputError(
            f"text encoder {name!r} needs the package {error.name!r}, which is not installed; "
            'install it with: pip install "aura-edge[training]"'
        ) from None
    config = open_clip.get_model_config(arch)
    if config is None:
        raise InputError(
            f"text encoder {name!r}: open_clip has no model {arch!r}; "
            'see python -c "import open_clip; print(open_clip.list_models())"'
        )
    if config["embed_dim"] != CLIP_DIM:
        raise InputError(
            f"text encoder {name!r}: its vectors have {config['embed_dim']} dimensions, "
            f"{CLIP_DIM} are needed (the space of ViT-B-32)"
        )
    tag = open_clip.get_pretrained_cfg(arch, pretrained)
    is_file = Path(pretrained).is_file()
    if not tag and not is_file:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(arch)) or "none"
        raise InputError(
            f"text encoder {name!r}: {pretrained!r} is neither a file nor a tag of {arch}; "
            f"tags: {tags}"
        )
    try:
        model = open_clip.create_model(
            arch,
            pretrained=pretrained,
            # open_clip 3 only warns when a tag's weights want the other activation, and then
            # computes other vectors without a word; versions before it switched for `openai`.
            force_quick_gelu=bool(tag and tag.get("quick_gelu")),
            # OpenAI's own files are TorchScript, which torch refuses to read as weights only.
            weights_only=not (is_file and _is_torchscript(pretrained)),
        )
    except Exception as error:  # open_clip, torch, the hub and urllib each raise their own
        cure = (
            "the file has to be a checkpoint of this architecture"
            if not tag
            else "without a network, fetch the weights elsewhere and name the file: "
            f"'open_clip:{arch.removesuffix('-quickgelu')}"
            f"{'-quickgelu' if tag.get('quick_gelu') else ''}:/path/to/checkpoint'"
        )
        raise InputError(
            f"text encoder {name!r}: could not load the weights "
            f"({_first_line(error)}); {cure}, or use {COMPACT_NAME!r}"
        ) from None
    return OpenClipTextEncoder(name, model.eval(), open_clip.get_tokenizer(arch))


def _is_torchscript(path: str) -> bool:
    """Whether a file is a TorchScript archive, not a plain dictionary of weights."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(entry.endswith("/constants.pkl") for entry in archive.namelist())


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
