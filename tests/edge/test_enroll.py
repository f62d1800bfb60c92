"""`edge-enroll`: examples from a recording or a live device, and what can be done with them."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import edge.personal.store
import edge.source
from edge.bundle import DEFAULT_BUNDLE, Bundle
from edge.labels import resolve_labels
from edge.personal.enroll import main
from edge.personal.store import Personal, PersonalStore
from edge.personal.take import take
from edge.pipeline import Pipeline
from edge.recording import open_recording
from edge.window import every_hop
from firmware_bridge.errors import InputError
from tests.conftest import RECORDING, walk, without

REPLAY = ("--from", str(RECORDING), "--placement", "waist")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PersonalStore:
    folder = tmp_path / "personal"
    monkeypatch.setattr(edge.personal.store, "personal_folder", lambda: folder)
    return PersonalStore(folder)


def test_a_private_label_from_a_recording_is_recognised_there(
    store: PersonalStore, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["my daily round", *REPLAY, "--start", "182", "--end", "198"]) == 0
    said = capsys.readouterr()
    assert said.out == "" and "12 windows; among the usual labels they look like: " in said.err
    assert "with these examples 12 of 12 are 'my daily round'" in said.err
    label = store.find("my daily round")
    assert label is not None and label.bundle_id == bundle.id
    assert (label.seconds, label.takes[0].placement) == (16.0, "waist")
    assert label.shown[0].source == f"replay:{RECORDING}"
    personal = Personal(store, "trunk", pytest.fail)
    labels = resolve_labels(["sitting", "standing", "lying", "my daily round"], bundle, personal)
    pipeline = Pipeline(bundle, labels, placement="waist")
    chunks = open_recording(RECORDING).chunks
    predictions = [p for samples in chunks for p in pipeline.push(samples)] + pipeline.finish()
    walks = [p.label for p in predictions if 160 <= p.start_s <= 174]
    rests = [p.label for p in predictions if 20 <= p.start_s <= 110]
    assert walks.count("my daily round") > 0.8 * len(walks)
    assert rests.count("my daily round") < 0.1 * len(rests)


def test_a_take_has_the_embeddings_and_angles_that_the_pipeline_has(bundle: Bundle) -> None:
    """Of the same windows, bit by bit; the tilt is known there, from the walk before."""
    start_s, end_s = 200.0, 210.0
    labels = resolve_labels(["walking", "sitting"], bundle)
    spans = (span for span in every_hop(1.0) if span[0] >= start_s * 200)
    pipeline = Pipeline(bundle, labels, spans)
    expected = [p for s in open_recording(RECORDING).chunks for p in pipeline.push(s)][:6]
    shown = take(open_recording(RECORDING).chunks, start_s, end_s, bundle, "waist", "file")
    assert shown.signal.shape == (6, 2000) and not np.isnan(shown.signal).any()
    assert all(p.tilt_deg is not None for p in expected)
    for k, prediction in enumerate(expected):
        np.testing.assert_array_equal(shown.take.embeddings[k], prediction.embedding)
        assert shown.take.tilt_deg[k] == np.float32(prediction.tilt_deg)
        assert shown.take.face_deg[k] == np.float32(prediction.face_deg)
    assert len(shown.take.embeddings) == 6


def test_chunks_change_nothing(bundle: Bundle) -> None:
    samples = walk(20, 50)
    whole = take(iter([samples]), 5, 15, bundle, None, "a walk")
    pieces = (samples[k : k + 7] for k in range(0, len(samples), 7))
    parts = take(pieces, 5, 15, bundle, None, "a walk")
    np.testing.assert_array_equal(whole.signal, parts.signal)
    np.testing.assert_array_equal(whole.take.embeddings, parts.take.embeddings)
    np.testing.assert_array_equal(whole.take.face_deg, parts.take.face_deg)


def test_a_device_without_a_gyroscope(bundle: Bundle) -> None:
    samples = replace(walk(12, 50), gyro_rads=None)
    shown = take(iter([samples]), 2, 10, bundle, None, "a walk")
    assert np.isnan(shown.signal[3:]).all() and not np.isnan(shown.signal[:3]).any()
    assert len(shown.take.embeddings) == 4


def test_examples_with_a_gap(bundle: Bundle) -> None:
    samples = without(walk(30, 50), 12, 15)
    shown = take(iter([samples]), 5, 25, bundle, None, "a walk")
    assert np.isnan(shown.signal[0]).sum() / 200 == pytest.approx(3, abs=0.05)
    # Of 16 windows those lack over 1 s that begin 3 to 8 s after the first: 3 s of gap from 7 s on.
    assert len(shown.take.embeddings) == 16 - 6
    with pytest.raises(InputError, match="no 5 s between 10 and 16 s"):
        take(iter([samples]), 10, 16, bundle, None, "a walk")
    with pytest.raises(InputError, match=r"from 26 to 34 s, but a walk ends after 30\.0 s"):
        take(iter([samples]), 26, 34, bundle, None, "a walk")


def test_a_live_device_counts_down(
    store: PersonalStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(edge.source, "in_real_time", lambda samples: samples)
    assert main(["--device", "sim", "my walk", "--seconds", "12", "--placement", "wrist"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[:5] == [
        "get ready for 'my walk': it begins in 3 s",
        "now: 'my walk', for 12 s",
        "7 s left",
        "2 s left",
        "thank you, that is all",
    ]
    label = store.find("my walk")
    assert label is not None and label.seconds == 12.0 and label.shown[0].source == "sim"


def test_more_examples_join_those_there(
    store: PersonalStore, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["walking", *REPLAY, "--start", "190", "--end", "200"]) == 0
    label = store.find("walking")
    assert label is not None
    stale = np.zeros_like(label.takes[0].embeddings)
    old = replace(label.shown[0], take=replace(label.takes[0], embeddings=stale))
    store.save(replace(label, bundle_id="aura-edge-before", shown=(old,)))
    assert main(["Walking", *REPLAY, "--start", "200", "--end", "206"]) == 0
    assert "'Walking' had 10 s of examples already" in capsys.readouterr().err
    joined = store.find("walking")
    assert joined is not None and joined.name == "Walking" and joined.bundle_id == bundle.id
    assert [len(t.embeddings) for t in joined.takes] == [6, 2]
    np.testing.assert_array_equal(joined.takes[0].embeddings, label.takes[0].embeddings)
    assert len(store.paths()) == 1


def test_labels_named_like_commands(
    store: PersonalStore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["add", "list", *REPLAY, "--start", "190", "--end", "200"]) == 0
    assert main(["rename", "list", "delete"]) == 0
    capsys.readouterr()
    assert main(["list"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("delete: 10 s in 1 take, worn: waist, last shown 2")
    assert said.out.count("\n") == 1 and f"kept in {store.folder}" in said.err
    assert main(["delete", "delete"]) == 0 and store.paths() == []


def test_renew_embeds_what_another_bundle_made(
    store: PersonalStore, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("walking", "my round"):
        assert main([name, *REPLAY, "--start", "190", "--end", "200"]) == 0
    label = store.find("my round")
    assert label is not None
    store.save(replace(label, bundle_id="aura-edge-before"))
    store.path_of("broken").write_bytes(b"not a label")
    capsys.readouterr()
    assert main(["list"]) == 0
    said = capsys.readouterr()
    assert "my round: 10 s in 1 take" in said.out and "bundle aura-edge-before" in said.out
    assert "with its text" in said.out and "by examples" in said.out and "damaged" in said.err
    assert main(["renew"]) == 0
    assert f"1 personal label made anew for bundle {bundle.id}" in capsys.readouterr().err
    again = store.find("my round")
    assert again is not None and again.bundle_id == bundle.id
    np.testing.assert_array_equal(again.takes[0].embeddings, label.takes[0].embeddings)


def test_an_export_unpacked_elsewhere_has_the_same_labels(
    store: PersonalStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine.zip"
    assert main(["export", str(out)]) == 2 and "no personal label" in capsys.readouterr().err
    assert main(["walking", *REPLAY, "--start", "190", "--end", "200"]) == 0
    assert main(["export", str(out)]) == 0
    assert out.stat().st_mode & 0o777 == 0o600
    with zipfile.ZipFile(out) as archive:
        archive.extractall(tmp_path / "elsewhere")
    there, here = PersonalStore(tmp_path / "elsewhere").find("walking"), store.find("walking")
    assert there is not None and here is not None
    np.testing.assert_array_equal(there.shown[0].signal, here.shown[0].signal)
    capsys.readouterr()
    assert main(["export", str(out)]) == 2 and "is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["sitting", *REPLAY], "--from FILE takes --start S and --end S"),
        (["sitting", *REPLAY, "--start", "1", "--end", "9", "--seconds", "8"], "no --seconds"),
        (["sitting", *REPLAY, "--start", "20", "--end", "24"], "4 s of examples from 20 s on"),
        (["sitting", *REPLAY, "--start", "-3", "--end", "9"], "expected 5 to 300 s"),
        (["sitting", *REPLAY, "--start", "230", "--end", "250"], "ends after 240.0 s"),
        (["sitting", "--device", "sim", "--start", "3"], "a live device takes --seconds"),
        (["sitting", "--device", "sim", "--acc-unit", "g"], "unit options go with --from"),
        (["sitting", "--device", "tricorder"], "'tricorder' is not known"),
        (["a, b", *REPLAY, "--start", "20", "--end", "30"], "without the comma"),
        (["x", "--from", str(RECORDING), "--start", "1", "--end", "9", "--placement", "moon"],
         "placement 'moon' is not recognised"),
        (["rename", "absent", "other"], "no personal label 'absent'"),
        (["delete", "absent"], "no personal label 'absent'"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said(
    store: PersonalStore, capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    assert main(argv) == 2
    assert message in capsys.readouterr().err and store.paths() == []


def test_the_command_line_says_what_a_label_needs(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["my chair"], ["add", "my chair"]):
        with pytest.raises(SystemExit) as stopped:
            main(argv)
        assert stopped.value.code == 2
        said = capsys.readouterr().err
        assert "edge-enroll add: error: one of the arguments --device --from is required" in said


def test_a_bundle_that_cannot_learn_is_refused_before_anything_is_shown(
    store: PersonalStore, plain_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["sitting", "--device", "sim", "--bundle", str(plain_folder)]
    assert main(argv) == 2
    assert "reference embeddings" in capsys.readouterr().err


def test_an_interrupted_enrolment_changes_nothing(
    store: PersonalStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(samples: object) -> object:
        yield walk(4, 50)
        raise KeyboardInterrupt

    monkeypatch.setattr(edge.source, "in_real_time", interrupted)
    assert main(["my walk", "--device", "sim"]) == 130
    assert "nothing was changed" in capsys.readouterr().err and store.paths() == []


def test_no_heavy_import_before_the_command_line_is_parsed() -> None:
    heavy = "{'numpy', 'onnxruntime', 'rich'}"
    code = f"import sys, edge.personal.enroll; print({heavy} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "set()"


def test_the_shipped_bundle_is_the_default(bundle: Bundle) -> None:
    assert bundle.folder == DEFAULT_BUNDLE and bundle.reference is not None
