"""The gateway as a program: answers plain JSON requests from any Zenoh client. Options: python agents/gateway.py --help"""

import sys

from wattle.__main__ import main

if __name__ == "__main__":
    sys.argv.insert(1, "gateway")
    main()
