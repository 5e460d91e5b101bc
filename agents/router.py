"""The router as a program: joins networks that cannot reach each other, and runs nothing. Options: python agents/router.py --help"""

import sys

from wattle.__main__ import main

if __name__ == "__main__":
    sys.argv.insert(1, "router")
    main()
