"""Ray nodes in network namespaces: what they do not share, nodes that are lost or join, a driver without trials."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from ray_namespaces import Namespaces, Node, namespaces, refused
from repository import HELPERS

from retina.results.run_folder import RunFolder

pytestmark = pytest.mark.skipif(bool(refused()), reason=refused())
DRIVER = HELPERS / "cluster_driver.py"
SECONDS = 300.0
"""More than any sweep here takes; whoever waits as long has found a defect."""
longer = pytest.mark.skipif(
    not os.environ.get("RETINA_NODES"), reason="takes a minute or more; RETINA_NODES=1 runs all tests of nodes"
)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Namespaces]:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(DRIVER.parent), os.environ.get("PYTHONPATH", "")]))
    with namespaces() as made:
        yield made


class Sweep:
    """A sweep that is driven from a node. Its trials wait in their third epoch until `go_on` is called."""

    def __init__(self, cluster: Namespaces, node: Node, folder: Path, trials: int) -> None:
        self.trials, self.results, self.root = trials, folder / "results", folder / "results" / "nodes"
        self._hold, self._log, self._said = (self.results / name for name in ("hold", "epochs.txt", "said.txt"))
        self.results.mkdir()
        self._hold.touch()
        command = [sys.executable, str(DRIVER), cluster.address, str(self.root), str(trials), "0.05"]
        with self._said.open("w") as said:
            self._driver = subprocess.Popen(node.command(*command), stdout=said, stderr=subprocess.STDOUT)

    def epochs(self) -> pd.DataFrame:
        """Return which epoch of which trial, by its learning rate, was begun on which node."""
        lines = self._log.read_text(encoding="utf-8").splitlines() if self._log.is_file() else []
        table = pd.DataFrame([line.split() for line in lines], columns=["node", "rate", "epoch"])
        return table.astype({"epoch": int})

    def said(self) -> str:
        return self._said.read_text(encoding="utf-8")

    def wait_until(self, condition: Callable[[], bool]) -> None:
        until = time.monotonic() + SECONDS
        while not condition():
            assert self._driver.poll() is None, self.said()
            assert time.monotonic() < until, self.said()
            time.sleep(0.05)

    def wait_for_epoch(self, node: Node, epoch: int, trials: int = 1) -> None:
        """Wait until so many trials have begun their epoch on `node`."""

        def begun() -> bool:
            seen = self.epochs()
            return bool(((seen["node"] == node.address) & (seen["epoch"] == epoch)).sum() >= trials)

        self.wait_until(begun)

    def go_on(self) -> None:
        self._hold.unlink()

    def ended(self, code: int = 0) -> str:
        """Wait for the sweep's end; return what it printed, in which no word of Ray's own is."""
        assert self._driver.wait(SECONDS) == code, self.said()
        for word in ("raylet", "Traceback", "(autoscaler", "core_worker", "GCS", "ActorDied", "\x1b"):
            assert word not in self.said()
        return self.said()

    def check_all_trials_ended(self) -> None:
        table = RunFolder.open(self.root).trials()
        assert table["state"].tolist() == ["COMPLETE"] * self.trials
        assert (table["epochs_run"] == 5).all()
        assert len(list(self.root.glob("trials/*/model.pt"))) == 3
        assert not list(self.root.glob(".node-check-*"))


def test_nodes_that_do_not_share_the_results_folder_are_told_before_the_first_epoch(
    cluster: Namespaces, tmp_path: Path
) -> None:
    head, other = cluster.node(), cluster.node()
    cluster.start(head, 1)
    cluster.start(other, 1, hidden=tmp_path)
    sweep = Sweep(cluster, head, tmp_path, 3)
    printed = sweep.ended(code=2)
    assert f"({other.address}): {sweep.results} is not the driver's results folder there" in printed
    assert "choose a results folder on a file system that all nodes mount" in printed
    assert len(printed.splitlines()) == 2
    assert {path.name for path in sweep.results.iterdir()} == {"hold", "said.txt"}


@longer
def test_the_trials_of_a_lost_node_go_on_from_their_checkpoints_and_a_node_that_joins_gets_trials(
    cluster: Namespaces, tmp_path: Path
) -> None:
    """The driver is on the head node, which has no share of the trials; the others have 2 cores and 1."""
    head, lost, joins = cluster.node(), cluster.node(), cluster.node()
    cluster.start(head, 0)
    cluster.start(lost, 2)
    sweep = Sweep(cluster, head, tmp_path, 5)
    sweep.wait_for_epoch(lost, 3, trials=2)
    cluster.start(joins, 1)
    sweep.wait_for_epoch(joins, 1)
    cluster.kill(lost)
    sweep.go_on()
    printed = sweep.ended()
    assert f"({joins.address}) has joined: room for 1 more trial" in printed
    sweep.check_all_trials_ended()
    seen = sweep.epochs()
    assert set(seen["node"]) == {lost.address, joins.address}
    both = seen[seen["rate"].isin(seen.loc[seen["node"] == lost.address, "rate"])]
    assert both[both["node"] == joins.address].groupby("rate")["epoch"].min().tolist() == [3, 3]


@longer
def test_a_node_that_joins_without_the_results_folder_gets_no_trials(cluster: Namespaces, tmp_path: Path) -> None:
    head, joins = cluster.node(), cluster.node()
    cluster.start(head, 1)
    sweep = Sweep(cluster, head, tmp_path, 4)
    sweep.wait_for_epoch(head, 3)
    cluster.start(joins, 2, hidden=tmp_path)
    sweep.wait_until(lambda: "is not used" in sweep.said())
    sweep.go_on()
    printed = sweep.ended()
    assert f"({joins.address}) is not used: {sweep.root} is not the driver's results folder there" in printed
    sweep.check_all_trials_ended()
    assert set(sweep.epochs()["node"]) == {head.address}


@longer
def test_a_sweep_whose_nodes_are_all_lost_waits_for_one_that_joins(cluster: Namespaces, tmp_path: Path) -> None:
    head, lost, joins = cluster.node(), cluster.node(), cluster.node()
    cluster.start(head, 0)
    cluster.start(lost, 1)
    sweep = Sweep(cluster, head, tmp_path, 4)
    sweep.wait_for_epoch(lost, 3)
    cluster.kill(lost)
    sweep.wait_until(lambda: "no node has room for a trial now" in sweep.said())
    cluster.start(joins, 2)
    sweep.go_on()
    assert f"({lost.address}) is lost; its trials go on" in sweep.ended()
    sweep.check_all_trials_ended()
