"""The bundle that ships with the package, loaded once."""

from __future__ import annotations

import pytest

from edge.bundle import DEFAULT_BUNDLE, Bundle, load_bundle


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    return load_bundle(DEFAULT_BUNDLE)
