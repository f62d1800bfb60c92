"""Probabilities over known activities become places, and probabilities, among unseen labels."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import training.bridge
from training.bridge import conse, transfer


def unit(*rows: list[float]) -> NDArray[np.float32]:
    vectors = np.array(rows, np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


ACTIVITIES = unit([1, 0, 0], [0, 1, 0], [0, 0, 1])


def test_a_certain_classifier_lands_on_the_activity_itself() -> None:
    np.testing.assert_allclose(conse(np.eye(3), ACTIVITIES), ACTIVITIES, atol=1e-6)
    single = conse(np.array([[0.5, 0.3, 0.2]]), ACTIVITIES, top=1)
    np.testing.assert_allclose(single, ACTIVITIES[:1], atol=1e-6)


def test_a_mixture_lies_between_and_names_the_unseen_label_there() -> None:
    (place,) = conse(np.array([[0.6, 0.4, 0.0]]), ACTIVITIES)
    np.testing.assert_allclose(place, unit([0.6, 0.4, 0])[0], atol=1e-6)
    labels = unit([1, 0, 0], [1, 1, 0], [0, 0, 1])  # the middle one was never trained on
    assert (labels @ place).argmax() == 1


def test_only_the_likeliest_take_part_and_their_total_does_not_matter() -> None:
    p = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])
    np.testing.assert_allclose(
        conse(p, ACTIVITIES, top=2), unit([0.5, 0.3, 0], [0, 0.2, 0.7]), atol=1e-6
    )
    np.testing.assert_allclose(conse(7 * p, ACTIVITIES), conse(p, ACTIVITIES), atol=1e-6)
    assert p.sum() == pytest.approx(2)  # the caller's array is untouched


def test_vectors_of_unit_length_or_zero() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(3), 50).astype(np.float32)
    places = conse(p, ACTIVITIES)
    assert places.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(places, axis=1), 1, atol=1e-6)
    assert not conse(np.zeros((1, 3)), ACTIVITIES).any()


def test_transfer_keeps_exact_matches_and_hands_the_rest_to_what_is_near() -> None:
    targets = unit([1, 0, 0], [0.1, 1, 0.2])
    p = np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [0.2, 0.3, 0.5]])
    q = transfer(p, ACTIVITIES, targets, temperature=0.1)
    np.testing.assert_allclose(q.sum(1), 1)
    np.testing.assert_allclose(q[0], [1, 0])  # itself a wanted label
    assert q[1, 1] > 0.99  # near the second label
    cosines = ACTIVITIES[2] @ targets.T
    odds = np.exp(cosines / 0.1)
    np.testing.assert_allclose(q[2], odds / odds.sum(), rtol=1e-5)
    np.testing.assert_allclose(q[3], p[3] @ q[:3])


def test_transfer_gets_sharper_as_the_temperature_falls() -> None:
    targets = unit([0.9, 0.1, 0], [0.8, 0.3, 0])
    p = np.array([[1.0, 0, 0]])
    warm, cool, cold = (transfer(p, ACTIVITIES, targets, t)[0, 0] for t in (10, 0.1, 1e-4))
    assert 0.5 < warm < cool < cold == pytest.approx(1)


def test_two_names_of_one_label_share_its_mass() -> None:
    targets = unit([1, 0, 0], [1, 0, 0], [0, 1, 0])
    q = transfer(np.array([[1.0, 0, 0]]), ACTIVITIES, targets, 0.1)
    np.testing.assert_allclose(q, [[0.5, 0.5, 0]])


def test_senseless_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="top"):
        conse(np.eye(3), ACTIVITIES, top=0)
    with pytest.raises(ValueError, match="temperature"):
        transfer(np.eye(3), ACTIVITIES, ACTIVITIES, 0.0)


def test_the_bridge_needs_numpy_and_the_runtime_and_nothing_else() -> None:
    path = Path(training.bridge.__file__)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    modules |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    assert modules == {"__future__", "numpy", "numpy.typing", "edge.decision"}
    code = (
        "import sys, training.bridge; sys.exit(any(m in sys.modules for m in ('torch','sklearn')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
