"""One cluster for all tests here, and the table of what was seen. Skips where no container engine answers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from tests.cluster.cluster import BASE, IMAGE, PATIENCE, Cluster, call, cluster, problem, whole
from tests.network.processes import wait_until
from wattle.client.blocking import Client


@dataclass
class Table:
    """What was done to the cluster, how long it took, and what was seen."""

    rows: list[tuple[str, float, str]] = field(default_factory=list)

    @contextmanager
    def row(self, what: str) -> Iterator[list[str]]:
        """Time a block; what it puts into the list is the last column."""
        seen: list[str] = []
        start = time.monotonic()
        yield seen
        self.add(what, time.monotonic() - start, *seen)

    def add(self, what: str, seconds: float, *seen: str) -> None:
        """Add a row."""
        self.rows.append((what, seconds, ", ".join(seen)))

    def text(self) -> str:
        """As people read it."""
        width = max(len(what) for what, _, _ in self.rows)
        return "\n".join(f"{what:{width}}  {seconds:6.1f} s  {seen}" for what, seconds, seen in self.rows)


_table = Table()


@pytest.fixture(scope="session")
def table() -> Table:
    """Printed once all tests have ended."""
    return _table


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was seen, whether all went well or not."""
    if _table.rows:
        terminalreporter.section("the cluster of docker-compose.yml")
        terminalreporter.write_line(_table.text())


@pytest.fixture(scope="session")
def site(table: Table, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster, healthy."""
    found = problem()
    if found is not None:
        pytest.skip(found)
    with table.row("the image is made, of wheels"):
        call("make", "image", f"IMAGE={IMAGE}", f"BASE={BASE}")
    start = time.monotonic()
    with cluster(tmp_path_factory.mktemp("cluster")) as made, pytest.MonkeyPatch.context() as variables:
        variables.setenv("WATTLE_TOKEN_FILE", str(made.token))
        wait_until(lambda: not made.unhealthy(), "every container is healthy", PATIENCE)
        table.add("ten containers up and healthy", time.monotonic() - start)
        made.fetch_credentials()
        yield made


@pytest.fixture
def client(site: Cluster) -> Iterator[Client]:
    """A client of the whole cluster."""
    with site.client() as made:
        whole(made)
        yield made
