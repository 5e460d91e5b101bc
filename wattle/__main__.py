"""``python -m wattle``."""

from wattle.cli.app import main

main()
