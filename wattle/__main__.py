"""The ``wattle`` command, and ``python -m wattle``."""

from __future__ import annotations

import sys


def main() -> None:
    """The entry point."""
    try:
        if sys.argv[1:2] == ["run"]:
            from wattle.cli import ahead

            ahead.begin(sys.argv[2:])
        from wattle.cli.app import main
    except KeyboardInterrupt:
        sys.exit(130)
    main()


if __name__ == "__main__":
    main()
