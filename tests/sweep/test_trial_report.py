"""A worker's report goes through what Ray Tune does to a result and comes out as it was. No Ray runs."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import FrozenInstanceError, asdict

import pytest
from learning_curves import epoch_result
from ray.tune.experiment import Trial
from ray.tune.utils import flatten_dict
from ray.tune.utils.serialization import TuneFunctionEncoder

from retina.sweep.trial_report import DONE, METRIC, TIME_ATTR, TrialReport, from_tune
from retina.training.epochs import EpochResult

EPOCH = TrialReport(epoch_result(3, 0.4), 0.6, earlier=(epoch_result(1, 0.6), epoch_result(2, 0.5)))
FAILURE = TrialReport(failure="the loss is nan", traceback="Traceback ...")
REPORTS = [EPOCH, TrialReport(epoch_result(6), 0.5, finished=True), FAILURE, TrialReport(failure="no", refusal="b: no")]


@pytest.mark.parametrize("report", REPORTS)
def test_a_report_survives_what_tune_does_to_a_result(report: TrialReport) -> None:
    result = report.to_tune()
    result.update(trial_id="a", config={"trial": "t0000", "config": {"epochs": 6}}, done=True)  # as Tune does
    assert from_tune(result) is report
    assert from_tune(flatten_dict(result)) is report
    assert flatten_dict(result)["config/config/epochs"] == 6
    assert json.dumps(result, cls=TuneFunctionEncoder)  # Tune writes a trial's last result down now and then
    for moved in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result)):  # noqa: S301
        found = from_tune(moved)
        assert found is not None
        assert repr(found) == repr(report)  # NaN is not equal to itself


def test_a_trial_s_last_result_holds_its_report() -> None:
    trial = Trial("t", stub=True)
    assert from_tune(trial.last_result) is None  # before the first report, it holds Tune's own keys
    trial.update_last_result(EPOCH.to_tune())
    assert from_tune(trial.last_result) is EPOCH
    assert from_tune(None) is None


def test_tune_finds_its_own_keys_in_the_dict() -> None:
    result = EPOCH.to_tune()
    assert (result[TIME_ATTR], result[METRIC], result[DONE]) == (3, 0.6, False)
    assert result["val_qwk"] == 0.4, "for Tune's own status table"
    assert not any(isinstance(value, dict) for value in result.values()), "Tune would flatten it"
    ends = [report.to_tune()[DONE] for report in REPORTS]
    assert ends == [False, True, True, True]
    failed = FAILURE.to_tune()
    assert failed[TIME_ATTR] == 0
    assert failed[METRIC] != failed[METRIC], "NaN, which Tune's percentiles leave out"


def test_the_epochs_of_a_report_are_in_order_and_the_first_of_a_worker_is_known() -> None:
    assert [result.epoch for result in EPOCH.results] == [1, 2, 3]
    assert FAILURE.results == ()
    assert EPOCH.is_first_of_worker
    assert TrialReport(epoch_result(1), 0.5).is_first_of_worker
    assert not TrialReport(epoch_result(2), 0.5).is_first_of_worker


def test_a_report_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        EPOCH.failure = "no"  # type: ignore[misc]


def test_an_epoch_is_read_from_a_checkpoint_of_another_version() -> None:
    values = asdict(epoch_result(2))
    assert EpochResult.from_dict(values) == epoch_result(2)
    del values["micro_batch"]  # a field with a default: an earlier version did not have it
    assert EpochResult.from_dict({**values, "more": 1}) == epoch_result(2)
    del values["val_qwk"]
    with pytest.raises(TypeError, match="val_qwk"):
        EpochResult.from_dict(values)
