"""The runtime as a program: executes tasks on this machine, keeps their logs and files. Options: python agents/runtime.py --help"""

import sys

from wattle.__main__ import main

if __name__ == "__main__":
    sys.argv.insert(1, "runtime")
    main()
