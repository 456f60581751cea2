"""On a cluster the best trial is evaluated by a Ray task with a trial's resources, not by the driver."""

import logging
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray
from local_ray import local_ray
from node_functions import break_down, describe_process, die, fail

import retina
from retina.errors import ClusterError, ResultsError
from retina.sweep import evaluation_task
from retina.sweep.cluster import TrialResources
from retina.sweep.evaluation_task import run_on_node

RESOURCES = TrialResources(cpu=1, gpu=0)


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    with local_ray(cores=1):
        yield


def test_it_runs_in_another_process_with_the_resources_of_a_trial(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "retina")
    run_on_node(partial(describe_process, tmp_path / "file"), RESOURCES)
    process, threads, devices = (tmp_path / "file").read_text().split()
    assert int(process) != os.getpid()
    assert (threads, devices) == ("1", "''")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "in the task"),
        ("WARNING", "a warning with a 1"),
    ]


def test_its_error_is_raised_by_the_driver(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "retina")
    with pytest.raises(ResultsError, match=r"^model\.pt: is damaged$"):
        run_on_node(partial(fail, "model.pt: is damaged"), RESOURCES)
    assert caplog.messages == ["before the error"]


def test_another_error_is_named_and_not_repeated_on_the_next_node(tmp_path: Path) -> None:
    node = ray.get_runtime_context().get_node_id()
    message = r"failed on the cluster: RuntimeError: cuDNN error: CUDNN_STATUS_NOT_INITIALIZED;\ngo on with --resume$"
    with pytest.raises(ClusterError, match=message):
        run_on_node(partial(break_down, tmp_path / "calls"), RESOURCES, [node, node])
    assert (tmp_path / "calls").read_text().splitlines() == ["called"]


def test_a_worker_that_dies_is_tried_on_each_node_and_named(caplog: pytest.LogCaptureFixture) -> None:
    node = ray.get_runtime_context().get_node_id()
    with pytest.raises(ClusterError, match=r"(?s)failed on the cluster: .*;\ngo on with --resume$"):
        run_on_node(die, RESOURCES, [node, node])
    assert len([line for line in caplog.messages if line.startswith("the evaluation failed on a node")]) == 2


def test_a_sweep_on_a_ray_that_is_there_evaluates_in_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_here(*_: Any) -> None:
        raise AssertionError("the driver evaluates")

    monkeypatch.setattr("retina.sweep.api.evaluate_sweep", refuse_here)
    nodes = []
    run_task = evaluation_task.run_on_node
    monkeypatch.setattr(
        "retina.sweep.ray_session.run_on_node",
        lambda *given: (nodes.append(given[2]), run_task(*given)),  # type: ignore[func-returns-value]
    )
    (tmp_path / "task.yaml").write_text(
        "data: {path: synthetic, image_size: 16, synthetic: {photographs: 24, size: 64, proportions: balanced}}\n"
        "trials: 1\n"
        "early_stop: {type: none}\n"
        "resources: {cpu: 1, gpu: 0}\n"
        "parameters: {pretrained: {value: false}, epochs: {value: 1}, learning_rate: {values: [1e-3]}}\n"
    )
    run = retina.run_sweep(tmp_path / "task.yaml", results=tmp_path / "results")
    assert nodes == [[ray.get_runtime_context().get_node_id()]]
    assert run.best is not None
    assert run.best.trial_id == "t0000"
    assert (run.path / "best" / "confusion_matrix_test.png").is_file()
    assert (run.path / "report.html").is_file()
