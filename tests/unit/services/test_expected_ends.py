"""When jobs are expected to end, reckoned by hand."""

from datetime import UTC, datetime, timedelta

from services.risk import Unfinished, expected_ends

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECONDS = {"fast": 10.0, "slow": 100.0}


def job(name, method="fast", started=None):
    return Unfinished(name, method, NOW, None if started is None else NOW - timedelta(seconds=started))


def ends(*line):
    return {name: (end - NOW).total_seconds() for name, end in expected_ends(NOW, line, SECONDS).items()}


def test_nobody_waits_where_nothing_runs():
    assert ends(job("a"), job("b", "slow"), job("c")) == {"a": 10, "b": 110, "c": 120}


def test_a_running_job_has_what_is_left_of_its_time():
    assert ends(job("a"), job("r", "slow", started=30)) == {"r": 70, "a": 80}


def test_one_that_ran_too_long_may_end_any_moment():
    assert ends(job("a"), job("r", started=50)) == {"r": 0, "a": 10}


def test_the_running_jobs_count_the_workers():
    line = [job("r", "slow", started=0), job("s", started=0), job("a", "slow"), job("b"), job("c")]
    assert ends(*line) == {"r": 100, "s": 10, "a": 110, "b": 110, "c": 120}


def test_an_empty_line():
    assert ends() == {}
