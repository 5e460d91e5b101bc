"""A session that lives for a moment, so that peers which have lost their link hear of each other again.

Zenoh links peers that gossip has told of each other, once. Seen on 1.10.2: a peer passes on where another is when that one links with
it, and at no other time, so two that lose their link while both keep theirs to a third stay apart. A process that stood still for longer
than a lease is enough for that. A session that comes anew links with all of them, and so tells each where the others are.
"""

from __future__ import annotations

import json
import secrets
from typing import Any

import zenoh

from wattle.bus.config import ZenohOptions, endpoints, zenoh_config


def introducer(options: ZenohOptions) -> zenoh.Config | None:
    """The configuration of such a session beside one with ``options``; None where gossip links nobody with that one."""
    config = zenoh_config(options)
    ends = [*endpoints(config, "connect"), *endpoints(config, "listen")]  # whom that one was told of, and itself
    # Unset, Zenoh's own choices hold: a peer, with gossip.
    mode, gossip = (json.loads(config.get_json(path)) for path in ("mode", "scouting/gossip/enabled"))
    if mode not in (None, "peer") or gossip is False or not ends:
        return None
    own: dict[str, Any] = {
        "id": f"{secrets.randbits(120) | 1 << 120:x}",
        "listen/endpoints": [],
        "connect/endpoints": ends,
        "connect/exit_on_failure": False,
        "scouting/multicast/enabled": False,
        "scouting/gossip/autoconnect": ["router", "peer"],
        "scouting/gossip/autoconnect_strategy": "always",
    }
    for path, value in own.items():
        config.insert_json5(path, json.dumps(value))
    return config
