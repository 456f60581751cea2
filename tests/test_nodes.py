"""Ray nodes in network namespaces: what they do not share, nodes that are lost or join, a driver without trials."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from netns import Namespaces, Node, namespaces, refused

from retina.results import RunFolder

pytestmark = pytest.mark.skipif(bool(refused()), reason=refused())
DRIVER = Path(__file__).with_name("on_nodes.py")
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


def drive(cluster: Namespaces, node: Node, root: Path, trials: int, seconds: float = 0.1) -> subprocess.Popen[str]:
    """Start a sweep from `node`."""
    command = [sys.executable, str(DRIVER), cluster.address, str(root), str(trials), str(seconds)]
    return subprocess.Popen(node.command(*command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def epochs(root: Path) -> pd.DataFrame:
    """Return which epoch of which trial, by its learning rate, was begun on which node."""
    file = root.with_name("epochs.txt")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    table = pd.DataFrame([line.split() for line in lines], columns=["node", "rate", "epoch"])
    return table.astype({"epoch": int})


def wait_for(driver: subprocess.Popen[str], root: Path, node: Node, number: int) -> None:
    """Wait until so many epochs were begun on `node`."""
    until = time.monotonic() + SECONDS
    while (epochs(root)["node"] == node.address).sum() < number:
        assert driver.poll() is None, driver.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.05)


def ended(driver: subprocess.Popen[str], code: int = 0) -> str:
    """Wait for the sweep's end; return what it printed, in which no word of Ray's own is."""
    printed = driver.communicate(timeout=SECONDS)[0]
    assert driver.returncode == code, printed
    for word in ("raylet", "Traceback", "(autoscaler", "core_worker", "GCS", "ActorDied", "\x1b"):
        assert word not in printed, printed
    return printed


def check_all_trials_ended(root: Path, trials: int) -> None:
    table = RunFolder.open(root).trials()
    assert table["state"].tolist() == ["COMPLETE"] * trials
    assert (table["epochs_run"] == 5).all()
    assert len(list(root.glob("trials/*/model.pt"))) == 3
    assert not list(root.glob(".node-check-*"))


def test_nodes_that_do_not_share_the_results_folder_are_told_before_the_first_epoch(
    cluster: Namespaces, tmp_path: Path
) -> None:
    head, other = cluster.node(), cluster.node()
    cluster.start(head, 1)
    cluster.start(other, 1, hidden=tmp_path)
    root = tmp_path / "results" / "nodes"
    printed = ended(drive(cluster, head, root, 3), code=2)
    assert f"({other.address}): {root.parent} is not the driver's results folder there" in printed
    assert "choose a results folder on a file system that all nodes mount" in printed
    assert len(printed.splitlines()) == 2
    assert list(tmp_path.rglob("*")) == [root.parent]


def test_the_trials_of_a_lost_node_go_on_from_their_checkpoints_and_a_node_that_joins_gets_trials(
    cluster: Namespaces, tmp_path: Path
) -> None:
    """The driver is on the head node, which has no share of the trials; the nodes have 1 and 2 cores."""
    head, lost, joins = cluster.node(), cluster.node(), cluster.node()
    cluster.start(head, 0)
    cluster.start(lost, 2)
    root = tmp_path / "results" / "nodes"
    driver = drive(cluster, head, root, 8, seconds=0.5)
    wait_for(driver, root, lost, 6)  # each of the two trials has saved an epoch
    cluster.start(joins, 1)
    wait_for(driver, root, joins, 1)
    cluster.kill(lost)
    printed = ended(driver)
    assert f"({joins.address}) has joined: room for 1 more trial" in printed
    assert f"({lost.address}) is lost; its trials go on" in printed
    check_all_trials_ended(root, 8)
    seen = epochs(root)
    assert set(seen["node"]) == {lost.address, joins.address}
    again = seen[seen["node"] == joins.address].merge(seen[seen["node"] == lost.address], on="rate")
    went_on = again.groupby("rate")["epoch_x"].min()
    assert (went_on > 1).any(), "a trial of the lost node began anew"


@longer
def test_a_node_that_joins_without_the_results_folder_gets_no_trials(cluster: Namespaces, tmp_path: Path) -> None:
    head, joins = cluster.node(), cluster.node()
    cluster.start(head, 1)
    root = tmp_path / "results" / "nodes"
    driver = drive(cluster, head, root, 30, seconds=0.5)
    wait_for(driver, root, head, 1)
    cluster.start(joins, 2, hidden=tmp_path)
    printed = ended(driver)
    assert f"({joins.address}) is not used: {root} is not the driver's results folder there" in printed
    check_all_trials_ended(root, 30)
    assert set(epochs(root)["node"]) == {head.address}


@longer
def test_a_sweep_whose_nodes_are_all_lost_waits_for_one_that_joins(cluster: Namespaces, tmp_path: Path) -> None:
    head, lost, joins = cluster.node(), cluster.node(), cluster.node()
    cluster.start(head, 0)
    cluster.start(lost, 1)
    root = tmp_path / "results" / "nodes"
    driver = drive(cluster, head, root, 4, seconds=0.5)
    wait_for(driver, root, lost, 3)
    cluster.kill(lost)
    time.sleep(20)  # longer than Ray takes to notice
    assert driver.poll() is None
    cluster.start(joins, 2)
    printed = ended(driver)
    assert "no node has room for a trial now" in printed
    check_all_trials_ended(root, 4)
