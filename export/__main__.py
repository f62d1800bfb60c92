"""`python -m export` / `edge-export`: write, check and extend bundles."""

from __future__ import annotations

import sys


def main(argv: list[str] | None = None) -> int:
    """Entry point of `edge-export`: a checkpoint's conversion unless a subcommand is named."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        return _dispatch(argv)
    except ImportError as error:
        print(
            f"error: edge-export needs the package {error.name!r}, which is not installed; "
            'install it with: pip install "aura-edge[training]"',
            file=sys.stderr,
        )
        return 2


def _dispatch(argv: list[str]) -> int:
    # Imported one by one: extending a bundle needs none of the packages that converting does.
    if argv[:1] == ["prototypes"]:
        from export import prototypes

        return prototypes.main(argv[1:])
    if argv[:1] == ["text-encoder"]:
        from export import text_export

        return text_export.main(argv[1:])
    from export import convert

    return convert.main(argv)


if __name__ == "__main__":
    sys.exit(main())
