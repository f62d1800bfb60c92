"""`python -m training` / `edge-train`: says what to install where torch is missing."""

from __future__ import annotations

import sys


def main(argv: list[str] | None = None) -> int:
    """Entry point of `edge-train`."""
    try:
        from training import train
    except ImportError as error:
        print(
            f"error: edge-train needs the package {error.name!r}, which is not installed; "
            'install it with: pip install "aura-edge[training]"',
            file=sys.stderr,
        )
        return 2
    return train.main(argv)


if __name__ == "__main__":
    sys.exit(main())
