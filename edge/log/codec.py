"""How the event log stores windows, embeddings and raw samples in few bytes.

**Windows** are rows of a NumPy structured array, stored byte by byte across the rows (all first
bytes, then all second bytes, ...) and deflated: what hardly changes from window to window, such as
the high bytes of times and rates, then costs next to nothing.

**Embeddings** of an encoder that ends in a layer of rank K lie in a K-dimensional subspace. They
are turned into an orthonormal basis of it (K = 128 of 512 for the bundle that ships; nothing is
lost), scaled so that the largest coordinate is 127, and rounded to int8. `python -m edge.log.bench`
prints by how much similarities change.

**Raw samples** keep float64 times and float32 values, deflated as the windows are.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.samples import Samples

TOP = 5
"""Best labels that are kept of a window."""

NO_LABEL = -1

WINDOW = np.dtype(
    [
        ("start_s", "<f8"),
        ("end_s", "<f8"),
        ("label", "<i2"),
        ("confidence", "<f2"),
        ("window_label", "<i2"),
        ("top", "<i2", TOP),
        ("similarity", "<f2", TOP),
        ("probability", "<f2", TOP),
        ("missing", "<f2"),
        ("rate_hz", "<f4"),
        ("inference_ms", "<f2"),
        ("motion_mps2", "<f2"),
        ("tilt_deg", "<f2"),
        ("face_deg", "<f2"),
        ("presence", "<f2"),
    ]
)
"""One window; labels are indices of the session's names, `NO_LABEL` for none, numbers that there
are none of are NaN."""

Rows = NDArray[np.void]

_MIN_RMS = 6e-5
"""Along a direction in which embeddings vary by less (root mean square) they do not vary: float16,
in which bundles and old logs hold them, rounds a unit vector of 512 values by half as much."""


def pack(rows: Rows) -> bytes:
    """(N,) `WINDOW` rows as bytes."""
    return _deflated(rows)


def unpack(blob: bytes) -> Rows:
    """(N,) what `pack` was given."""
    return _inflated(blob, WINDOW)


def _deflated(rows: Rows) -> bytes:
    by_byte = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), rows.dtype.itemsize).T
    return zlib.compress(np.ascontiguousarray(by_byte).data, level=1)


def _inflated(blob: bytes, dtype: np.dtype[np.void]) -> Rows:
    by_byte = np.frombuffer(zlib.decompress(blob), np.uint8).reshape(dtype.itemsize, -1)
    return np.ascontiguousarray(by_byte.T).view(dtype)[:, 0]


@dataclass(frozen=True)
class Basis:
    """The subspace that a bundle's embeddings lie in."""

    dimension: int
    """D of the embeddings."""

    rows: NDArray[np.float32] | None
    """(K, D) orthonormal; None for the whole space."""

    @property
    def rank(self) -> int:
        """K."""
        return self.dimension if self.rows is None else len(self.rows)

    def inside(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """(..., D) -> (..., K) coordinates of the part that lies in the subspace."""
        return vectors if self.rows is None else vectors @ self.rows.T

    def encode(self, embeddings: NDArray[np.float32]) -> bytes:
        """(N, D) unit vectors, or zero for none, as bytes: (N,) float16 factors that make the codes
        unit vectors, then (N, K) int8 codes."""
        inside = self.inside(embeddings)
        largest = np.abs(inside).max(axis=1, initial=0, keepdims=True)
        codes = np.rint(inside * (127 / np.where(largest > 0, largest, 1))).astype(np.int8)
        norms = np.linalg.norm(codes.astype(np.float32), axis=1)
        factors = np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)
        return bytes(factors.astype("<f2").tobytes() + codes.tobytes())

    def codes(self, blob: bytes) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
        """(N,) factors and (N, K) codes."""
        n = len(blob) // (2 + self.rank)
        factors = np.frombuffer(blob, "<f2", n).astype(np.float32)
        return factors, np.frombuffer(blob, np.int8, offset=2 * n).reshape(n, self.rank)

    def joined(self, blobs: list[bytes]) -> bytes:
        """Several of `encode` as one."""
        parts = [self.codes(blob) for blob in blobs]
        factors = np.concatenate([f for f, _ in parts]).astype("<f2")
        return bytes(factors.tobytes() + b"".join(c.tobytes() for _, c in parts))

    def part(self, blob: bytes, which: slice | NDArray[np.bool_]) -> bytes:
        """Some windows of one of `encode`."""
        factors, codes = self.codes(blob)
        return bytes(factors[which].astype("<f2").tobytes() + codes[which].tobytes())

    def decode(self, blob: bytes) -> NDArray[np.float32]:
        """(N, D) unit vectors, zero for none."""
        _, codes = self.codes(blob)
        values = codes.astype(np.float32)
        norms = np.linalg.norm(values, axis=1, keepdims=True)
        values /= np.where(norms > 0, norms, 1)
        return values if self.rows is None else values @ self.rows


def basis_of(vectors: NDArray[np.float32]) -> Basis:
    """The subspace that (R, D) embeddings span: the eigenvectors of their products, which take half
    as long as their singular value decomposition.

    The whole space where they are too few to tell: when they span as many directions as there are
    vectors, the next one might span another.
    """
    r, dimension = vectors.shape
    exact = vectors.astype(np.float64)
    squares, columns = np.linalg.eigh(exact.T @ exact)  # ascending: of the singular values
    rank = int((squares > _MIN_RMS**2 * r).sum())
    if rank >= min(r, dimension):
        return Basis(dimension, None)
    return Basis(dimension, np.ascontiguousarray(columns[:, : -rank - 1 : -1].T, np.float32))


def _sample_dtype(has_gyro: bool) -> np.dtype[np.void]:
    gyro = [("gyro_rads", "<f4", 3)] if has_gyro else []
    return np.dtype([("t_s", "<f8"), ("acc_mps2", "<f4", 3), *gyro])


def pack_samples(samples: Samples) -> bytes:
    """Raw samples as bytes."""
    rows = np.empty(len(samples), _sample_dtype(samples.gyro_rads is not None))
    rows["t_s"], rows["acc_mps2"] = samples.t_s, samples.acc_mps2
    if samples.gyro_rads is not None:
        rows["gyro_rads"] = samples.gyro_rads
    return _deflated(rows)


def unpack_samples(blob: bytes, has_gyro: bool) -> Samples:
    """What `pack_samples` was given, values rounded to float32."""
    rows = _inflated(blob, _sample_dtype(has_gyro))
    gyro = rows["gyro_rads"].astype(np.float64) if has_gyro else None
    return Samples(rows["t_s"].copy(), rows["acc_mps2"].astype(np.float64), gyro)
