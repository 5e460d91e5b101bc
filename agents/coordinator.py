"""The coordinator as a program: owns runs and decides what starts where. Options: python agents/coordinator.py --help"""

import sys

from wattle.__main__ import main

if __name__ == "__main__":
    sys.argv.insert(1, "coordinator")
    main()
