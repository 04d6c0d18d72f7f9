"""Settings that do not fit together are refused by name; those that were left empty are as if they were not set."""

import pytest
from pydantic import ValidationError

from shared.settings import Settings


def settings(**values: object) -> Settings:
    return Settings(_env_file=None, **values)  # type: ignore[call-arg, arg-type]


@pytest.mark.parametrize("grace", [15.5, 29.5, 30, 31])
def test_a_child_is_killed_well_before_its_lease_ends(grace: float) -> None:
    """A third of the lease may have passed since the last heartbeat, so that half of it is what there is for the kill."""
    with pytest.raises(ValidationError, match="EFFACE_KILL_GRACE_SECONDS must be at most half of EFFACE_LEASE_SECONDS"):
        settings(lease_seconds=30, heartbeat_seconds=2, kill_grace_seconds=grace)
    assert settings(lease_seconds=30, heartbeat_seconds=2, kill_grace_seconds=15).kill_grace_seconds == 15


@pytest.mark.parametrize("name", ["quarantine_retention_days", "report_retention_days", "database_service_role"])
def test_what_compose_passes_on_empty_is_off(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"EFFACE_{name.upper()}", "")
    assert getattr(settings(), name) is None


@pytest.mark.parametrize("days", [0, -1])
def test_a_retention_of_no_time_is_refused(days: float) -> None:
    with pytest.raises(ValidationError):
        settings(report_retention_days=days)
