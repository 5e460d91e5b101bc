"""A peer in a process of its own, to be stopped and killed: ``python child.py [listen=ENDPOINT] [connect=ENDPOINT] [ask=KEY]``.

Asks what it is told to, subscribes to ``fed``, answers queries on ``child`` with ``here``, holds those on ``hold`` for ever and puts on
``held`` then, shows the token ``alive/child``, prints ``ready``, and lives until its standard input ends.
"""

from __future__ import annotations

import sys

import zenoh

from wattle.bus.config import ZenohOptions, open_session


def main() -> None:
    """Run."""
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    listen, connect = ((given[name],) if name in given else () for name in ("listen", "connect"))
    session = open_session(ZenohOptions(listen=listen, connect=connect))
    held: list[zenoh.Query] = []

    def here(query: zenoh.Query) -> None:
        with query:
            query.reply("child", b"here")

    def hold(query: zenoh.Query) -> None:
        held.append(query)
        session.put("held", b"")

    answering = session.declare_queryable("child", here, complete=True)
    holding = session.declare_queryable("hold", hold, complete=True)
    fed = session.declare_subscriber("fed", lambda _: None)
    token = session.liveliness().declare_token("alive/child")
    if "ask" in given:
        session.get(given["ask"], print, timeout=600)
    print("ready", flush=True)
    sys.stdin.read()
    for entity in (token, fed, holding, answering):
        entity.undeclare()
    session.close()


if __name__ == "__main__":
    main()
