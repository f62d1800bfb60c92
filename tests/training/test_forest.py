"""The features are what their names say; the controls learn from them and answer in text space."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from training.baselines.features import FEATURE_NAMES, ROTATION_INVARIANT, features
from training.baselines.forest import FOREST_MODELS, ForestRecogniser, fit_forest

GRAVITY = 9.81
RATE_HZ, SAMPLES = 200, 1000
Window = NDArray[np.float32]


def swing(hz: float, amplitude: float, axis: int = 0, noise: float = 0.0, seed: int = 0) -> Window:
    """Gravity along z; a sinusoid on an axis of the accelerometer, at half of it on the gyro's."""
    t = np.arange(SAMPLES) / RATE_HZ
    imu = noise * np.random.default_rng(seed).normal(size=(6, SAMPLES))
    imu[2] += GRAVITY
    for row, size in ((axis, amplitude), (3 + axis, amplitude / 2)):
        imu[row] += size * np.sin(2 * np.pi * hz * t)
    return imu.astype(np.float32)


def of(imu: Window) -> dict[str, float]:
    (row,) = features(imu[None])
    return dict(zip(FEATURE_NAMES, row.tolist(), strict=True))


def walk_like(seed: int) -> Window:
    """Two harmonics and noise on all axes, none of them flat or symmetrical."""
    rng = np.random.default_rng(seed)
    t = np.arange(SAMPLES) / RATE_HZ
    hz = rng.uniform(0.7, 2.2)
    size, phase = rng.uniform(0.3, 2.0, (2, 6, 1)), rng.uniform(0, 6, (2, 6, 1))
    waves = [size[k] * np.sin(2 * np.pi * hz * (k + 1) * t + phase[k]) for k in range(2)]
    imu = sum(waves) + 0.1 * rng.normal(size=(6, SAMPLES))
    imu[:3] += np.array([[2.0], [3.0], [9.0]])
    return np.asarray(imu, np.float32)


def test_names_are_one_for_each_column_and_unique() -> None:
    assert features(np.zeros((3, 6, SAMPLES), np.float32)).shape == (3, len(FEATURE_NAMES))
    assert len(set(FEATURE_NAMES)) == len(FEATURE_NAMES) == len(ROTATION_INVARIANT)


def test_a_known_sinusoid() -> None:
    """2 m/s^2 at 1.6 Hz on x, gravity on z."""
    f = of(swing(1.6, 2.0))
    for sensor, amplitude in (("acc", 2.0), ("gyro", 1.0)):
        x = f"{sensor}_x"
        assert f[f"{x}_mean"] == pytest.approx(0, abs=1e-3)
        assert f[f"{x}_std"] == pytest.approx(amplitude / np.sqrt(2), rel=0.01)
        assert f[f"{x}_max"] == pytest.approx(amplitude, rel=0.01)
        assert f[f"{x}_q75"] == pytest.approx(amplitude * np.sin(np.pi / 4), rel=0.02)
        assert f[f"{x}_q25"] == pytest.approx(-f[f"{x}_q75"], rel=0.02)
        assert f[f"{x}_kurtosis"] == pytest.approx(-1.5, abs=0.02)  # a sinusoid's
        assert f[f"{x}_crossings_hz"] == pytest.approx(3.2, abs=0.3)  # two a period
        assert f[f"{x}_jerk_std"] == pytest.approx(
            amplitude / np.sqrt(2) * 2 * np.pi * 1.6, rel=0.02
        )
        assert f[f"{x}_cadence_hz"] == pytest.approx(1.6, rel=0.03)
        assert f[f"{x}_period_strength"] == pytest.approx(1, abs=0.05)
        assert f[f"{x}_dominant_hz"] == pytest.approx(1.6, abs=0.1)
        assert f[f"{x}_energy_1_2_hz"] == pytest.approx(amplitude**2 / 2, rel=0.03)
        assert f[f"{x}_energy_5_8_hz"] < 1e-4
        assert f[f"{sensor}_principal_std_1"] == pytest.approx(amplitude / np.sqrt(2), rel=0.01)
        assert f[f"{sensor}_principal_std_2"] < 1e-2
        assert f[f"{sensor}_energy"] == pytest.approx(amplitude**2 / 2, rel=0.01)
    assert f["acc_z_mean"] == pytest.approx(GRAVITY, rel=1e-4)
    assert f["acc_z_std"] < 1e-3
    assert (f["gravity_x"], f["gravity_y"], f["gravity_z"]) == pytest.approx((0, 0, 1), abs=1e-3)
    assert f["gravity_norm"] == pytest.approx(GRAVITY, rel=1e-3)
    assert f["acc_vertical_mean"] == pytest.approx(GRAVITY, rel=1e-3)
    assert f["acc_horizontal_max"] == pytest.approx(2, rel=0.01)


def test_noise_has_a_flat_spectrum_and_no_period() -> None:
    noise, tone = of(swing(1.6, 0.0, noise=0.5)), of(swing(1.6, 2.0, noise=0.01))
    assert noise["acc_x_spectral_entropy"] > 0.8
    assert tone["acc_x_spectral_entropy"] < 0.4
    assert noise["acc_x_period_strength"] < 0.5 < tone["acc_x_period_strength"]
    assert noise["acc_x_dominant_share"] < 0.3
    assert tone["acc_x_dominant_share"] > 0.9


def test_correlation_between_axes_and_between_the_sensors() -> None:
    imu = swing(1.0, 1.0)
    imu[1] = -2 * imu[0]
    assert of(imu)["acc_correlation_xy"] == pytest.approx(-1, abs=1e-3)
    assert of(imu)["acc_correlation_xz"] == 0  # z is flat
    assert of(imu)["acc_gyro_correlation"] > 0.9


def test_a_device_that_is_tilted_meanwhile() -> None:
    imu = swing(1.0, 0.0)
    imu[:3, 600:] = np.array([[GRAVITY], [0], [0]])
    assert of(imu)["gravity_turn"] == pytest.approx(np.pi / 2, abs=1e-3)
    assert of(swing(1.0, 0.0))["gravity_turn"] == pytest.approx(0, abs=1e-3)


def test_what_claims_to_be_rotation_invariant_is_and_the_rest_is_not() -> None:
    imu = np.stack([walk_like(seed) for seed in range(6)])
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 3, 3)))
    turn *= np.linalg.det(turn)[:, None, None]  # no mirror images
    turned = np.einsum("nij,nsjt->nsit", turn, imu.reshape(6, 2, 3, -1)).reshape(imu.shape)
    before, after = features(imu), features(turned)
    np.testing.assert_allclose(
        after[:, ROTATION_INVARIANT], before[:, ROTATION_INVARIANT], rtol=2e-2, atol=5e-3
    )
    assert 100 < ROTATION_INVARIANT.sum() < len(FEATURE_NAMES)
    changed = np.abs(after - before).max(0) > 0.02
    axes = [f"{s}_{axis}_std" for s in ("acc", "gyro") for axis in "xyz"] + ["gravity_x"]
    assert all(changed[FEATURE_NAMES.index(name)] for name in axes)


def test_a_missing_gyroscope_leaves_the_accelerometers_features_alone() -> None:
    imu = walk_like(0)
    lost = imu.copy()
    lost[3:] = np.nan
    f, g = features(imu[None])[0], features(lost[None])[0]
    of_gyro = np.array(["gyro" in name for name in FEATURE_NAMES])
    assert np.isnan(g[of_gyro]).all()
    np.testing.assert_array_equal(g[~of_gyro], f[~of_gyro])


def test_a_padded_window_has_the_features_of_what_was_measured() -> None:
    """Only 2.5 s of 5 s: means and energies are of these, not thinned out by what is missing."""
    imu = swing(2.0, 2.0)
    imu[:, 500:] = np.nan
    whole, padded = of(swing(2.0, 2.0)), of(imu)
    for name in ("acc_x_std", "acc_x_energy_2_3_hz", "acc_x_crossings_hz", "acc_x_jerk_std"):
        assert padded[name] == pytest.approx(whole[name], rel=0.15, abs=0.05), name
    assert padded["acc_x_cadence_hz"] == pytest.approx(2, rel=0.03)
    assert padded["acc_z_mean"] == pytest.approx(GRAVITY, rel=1e-4)
    assert padded["gravity_norm"] == pytest.approx(GRAVITY, rel=1e-2)


def test_a_gap_is_no_jerk_and_no_minimum() -> None:
    imu = swing(1.0, 1.0)
    imu[:, 400:480] = np.nan
    f = of(imu)
    assert f["acc_z_min"] == pytest.approx(GRAVITY, rel=1e-4)
    assert f["acc_z_jerk_mean_abs"] == pytest.approx(0, abs=1e-3)
    assert f["acc_x_std"] == pytest.approx(1 / np.sqrt(2), rel=0.05)


@pytest.mark.parametrize("measured", [0, 1, 60, 101, 200, 1000])
def test_nothing_measured_and_nothing_moving_give_no_infinity(measured: int) -> None:
    """Empty, shorter than 0.5 s, very short, and perfectly still windows; warnings are errors."""
    imu = np.full((2, 6, SAMPLES), np.nan, np.float32)
    imu[0, :, :measured] = 0
    imu[1, :, :measured] = walk_like(0)[:, :measured]
    f = features(imu)
    assert not np.isinf(f).any()
    assert np.isnan(f).all() == (measured < 100)
    if measured >= 100:
        not_a_period = [not name.endswith(("cadence_hz", "dominant_hz")) for name in FEATURE_NAMES]
        assert np.isfinite(f[:, not_a_period]).all()


def test_a_window_does_not_depend_on_its_neighbours() -> None:
    imu = np.stack([walk_like(seed) for seed in range(70)])
    np.testing.assert_allclose(features(imu)[66], features(imu[66:67])[0], rtol=1e-4, atol=1e-5)


# ---- the controls ----

ACTIVITIES = np.eye(4, 8, dtype=np.float32)
"""Slow swinging, fast swinging, lying still on x; no window of the fourth."""


def toy(n: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    activity = rng.integers(3, size=n)
    rows = []
    for a in activity:
        imu = swing(
            (1.0, 3.0, 1.0)[a], (2.0, 2.0, 0.0)[a], noise=0.1, seed=int(rng.integers(2**31))
        )
        if rng.random() < 0.3:
            imu[3:] = np.nan
        if rng.random() < 0.3:
            imu[:, 500:] = np.nan
        rows.append(imu)
    return np.stack(rows), activity


def in_batches(imu: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    return [imu[i : i + 37] for i in range(0, len(imu), 37)]


@pytest.fixture(autouse=True)
def small_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.baselines.forest.TREES", 12)
    monkeypatch.setattr("training.baselines.forest.BOOSTING_ROUNDS", 8)


@pytest.mark.parametrize("name", FOREST_MODELS)
def test_a_control_learns_and_embeds_in_the_text_space(name: str) -> None:
    imu, activity = toy(300, 0)
    control = fit_forest(name, in_batches(imu), activity, ACTIVITIES, seed=0, jobs=1)
    unseen, truth = toy(60, 1)
    embedded = control.embed(unseen)
    assert embedded.shape == (60, 8) and embedded.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1, atol=1e-5)
    assert ((embedded @ ACTIVITIES.T).argmax(1) == truth).mean() > 0.9
    probabilities = control.probabilities(features(unseen))
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    assert not probabilities[:, 3].any()  # an activity without windows


@pytest.mark.parametrize("name", FOREST_MODELS)
def test_a_control_trained_without_any_gyroscope(name: str) -> None:
    imu, activity = toy(100, 0)
    imu[:, 3:] = np.nan
    control = fit_forest(name, in_batches(imu), activity, ACTIVITIES, seed=0, jobs=1)
    unseen, truth = toy(60, 1)  # most with one
    assert ((control.embed(unseen) @ ACTIVITIES.T).argmax(1) == truth).mean() > 0.9


@pytest.mark.parametrize("name", FOREST_MODELS)
def test_a_rare_activity_weighs_as_much_as_a_frequent_one(name: str) -> None:
    """Where nothing tells two activities apart, neither is likelier."""
    rows = np.zeros((220, len(FEATURE_NAMES)), np.float32)
    activity = np.repeat([0, 1], [200, 20])
    control = ForestRecogniser(name, ACTIVITIES, jobs=1)
    control.fit(rows, activity, seed=0)
    np.testing.assert_allclose(control.probabilities(rows[:1])[0, :2], 0.5, atol=1e-3)


@pytest.mark.parametrize("name", FOREST_MODELS)
def test_the_same_seed_gives_the_same_control(name: str) -> None:
    imu, activity = toy(150, 0)
    activity[::4] = (activity[::4] + 1) % 3  # wrong ones, so that no forest is certain
    unseen, _ = toy(20, 1)

    def embedded(seed: int) -> NDArray[np.float32]:
        control = fit_forest(name, in_batches(imu), activity, ACTIVITIES, seed, sample=100, jobs=1)
        return control.embed(unseen)

    np.testing.assert_array_equal(embedded(3), embedded(3))
    assert not np.array_equal(embedded(3), embedded(4))  # another 100 of the 150 windows


def test_sample_keeps_windows_and_activities_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window's mean on x says its activity; what reaches `fit` must still pair up."""
    seen: list[tuple[NDArray[np.float32], NDArray[np.int64]]] = []
    monkeypatch.setattr(
        ForestRecogniser, "fit", lambda self, rows, activity, seed: seen.append((rows, activity))
    )
    activity = np.random.default_rng(0).integers(3, size=100)
    imu = np.zeros((100, 6, SAMPLES), np.float32)
    imu[:, 0] = activity[:, None] + 1
    fit_forest("random-forest", in_batches(imu), activity, ACTIVITIES, seed=0, sample=40)
    ((rows, kept),) = seen
    assert len(kept) == 40
    np.testing.assert_array_equal(rows[:, FEATURE_NAMES.index("acc_x_mean")], kept + 1)


@pytest.mark.parametrize("n", [99, 101])
def test_windows_and_activities_must_be_as_many(n: int) -> None:
    imu, _ = toy(100, 0)
    with pytest.raises(ValueError, match="windows"):
        fit_forest(
            "random-forest", in_batches(imu), np.zeros(n, np.int64), ACTIVITIES, 0, sample=10
        )


def test_an_unknown_control_is_refused() -> None:
    with pytest.raises(ValueError, match="random-forest, gradient-boosting"):
        ForestRecogniser("svm", ACTIVITIES)
