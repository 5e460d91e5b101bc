"""The ``wattle`` command, and ``python -m wattle``."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """The entry point."""
    open_closed_streams()
    try:
        if sys.argv[1:2] == ["run"]:
            from wattle.cli import ahead

            ahead.begin(sys.argv[2:])
        from wattle.cli.app import main
    except KeyboardInterrupt:
        sys.exit(130)
    main()


def open_closed_streams() -> None:
    """Have streams that were closed by whoever started this (``>&-``) lead nowhere; else the next file that is opened takes their place."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free, so this one
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 - as Python opens them


if __name__ == "__main__":
    main()
