"""When jobs are expected to end, reckoned by hand."""

from datetime import UTC, datetime, timedelta

from services.jobs.deadline_risk import Unfinished, expected_ends

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECONDS = {"fast": 10.0, "slow": 100.0}


def job(name, method="fast", started=None, tenant=""):
    return Unfinished(name, method, NOW, None if started is None else NOW - timedelta(seconds=started), tenant)


def ends(*line, **options):
    return {name: (end - NOW).total_seconds() for name, end in expected_ends(NOW, line, SECONDS, **options).items()}


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


def test_tenants_take_turns():
    line = [*(job(f"a{n}", tenant="alpha") for n in range(4)), job("b", tenant="beta")]
    assert ends(*line) == {"a0": 10, "b": 20, "a1": 30, "a2": 40, "a3": 50}
    assert ends(*line, served={"alpha": 2.0, "beta": 1.0}) == {"b": 10, "a0": 20, "a1": 30, "a2": 40, "a3": 50}


def test_the_tenant_with_fewest_running_is_next():
    line = [job("r", "slow", started=0, tenant="alpha"), job("s", started=0, tenant="beta")]
    waiting = [job("a", tenant="alpha"), job("b", tenant="beta"), job("c", tenant="beta")]
    assert ends(*line, *waiting) == {"r": 100, "s": 10, "b": 20, "c": 30, "a": 40}


def test_a_weight_is_a_share():
    line = [job("r", "slow", 0, "alpha"), job("s", "slow", 0, "beta"), job("t", started=0, tenant="gamma")]
    line += [job("a", tenant="alpha"), job("b", tenant="beta")]
    assert ends(*line) == {"r": 100, "s": 100, "t": 10, "a": 20, "b": 30}
    assert ends(*line, weights={"beta": 2.0}) == {"r": 100, "s": 100, "t": 10, "b": 20, "a": 30}


def test_workers_that_are_idle_take_jobs_at_once():
    assert ends(job("a"), job("b"), job("c"), workers=2) == {"a": 10, "b": 10, "c": 20}
