"""A window into a host, as a program to run there: ``window.py SOCKET HOST:PORT`` passes what connects to a unix socket on to a TCP port.

Files are shared by all namespaces, so a test outside looks in through the socket. Agents themselves must not listen on unix sockets here:
others would learn of them by gossip and connect through them, past every cut.
"""

from __future__ import annotations

import sys
from functools import partial

import trio


async def main(path: str, host: str, port: int) -> None:
    """Pass on until killed; prints ``ready`` when it listens."""
    listener = trio.socket.socket(trio.socket.AF_UNIX)
    await listener.bind(path)
    listener.listen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, partial(_pass_on, host, port), [trio.SocketListener(listener)])
        print("ready", flush=True)


async def _pass_on(host: str, port: int, client: trio.SocketStream) -> None:
    async with await trio.open_tcp_stream(host, port) as server, trio.open_nursery() as nursery:
        nursery.start_soon(_copy, client, server)
        nursery.start_soon(_copy, server, client)


async def _copy(source: trio.SocketStream, sink: trio.SocketStream) -> None:
    try:
        async for data in source:
            await sink.send_all(data)
        await sink.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return  # one side is gone; the other side's copy ends by itself


if __name__ == "__main__":
    address, _, number = sys.argv[2].rpartition(":")
    trio.run(main, sys.argv[1], address, int(number))
