"""Keys, tokens, and a network in memory whose gateway asks for them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.bus.networks import PATIENCE
from tests.coordinator.world import KEYS, World, world
from tests.security.members import Members, all_roles
from wattle.errors import error_from_dict
from wattle.security.roles import Role
from wattle.security.tokens import issue, make_key


@dataclass(frozen=True)
class Cluster:
    """A cluster's signing key in its two parts, and its id."""

    private: Path
    public: Path
    id: str

    def token(self, role: Role = Role.ADMIN, **more: Any) -> str:
        """A token of ``ann``'s, good in the default namespace."""
        given: dict[str, Any] = {"subject": "ann", "namespaces": ["default"], "ttl": 600} | more
        return issue(self.private, role=role, **given)


def new_cluster(folder: Path) -> Cluster:
    folder.mkdir()
    private, public = folder / "token.key", folder / "token.pub"
    return Cluster(private, public, make_key(private, public))


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return new_cluster(tmp_path / "cluster")


@pytest.fixture
async def net(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


Api = Callable[..., Any]


def attached(token: str | None) -> bytes | None:
    """The attachment of a request with a token."""
    return None if token is None else json.dumps({"token": token}).encode()


def api_of(net: World) -> Api:
    """What asks a gateway: the JSON of its answer, or the error it stands for."""

    async def api(path: str, payload: Any = None, *, token: str | None = None) -> Any:
        body = None if payload is None else json.dumps(payload).encode()
        path, _, parameters = path.partition("?")
        key, attachment = KEYS.api(path), attached(token)
        (reply,) = await net.client.get(key, body, parameters=parameters, timeout=PATIENCE, attachment=attachment)
        if not reply.ok:
            raise error_from_dict(json.loads(reply.payload))
        return json.loads(reply.payload)

    return api


@pytest.fixture(scope="session")
def members(tmp_path_factory: pytest.TempPathFactory) -> Members:
    """Bundles of every role."""
    return all_roles(tmp_path_factory.mktemp("members") / "ca")
