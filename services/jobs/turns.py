"""Whose turn it is: which job a worker takes next.

Tenants take turns, so that nobody waits behind all that another one has sent: first comes the
tenant with the fewest jobs running (over its weight), of those the one that was served longest
ago. Within a tenant the job that is due first comes first (`shared.postgres.tables.TURN`).
`services.jobs.deadline_risk` foretells by the same rule."""

import json
from collections.abc import Mapping

from sqlalchemy import text
from sqlalchemy.orm import Session

# The states are spelled out, not bound: with a bound one Postgres could not use the partial indexes
# in a prepared statement. `line` hops through ix_jobs_waiting from tenant to tenant, so that the
# cost grows with the number of tenants that wait, neither with that of their jobs nor with history.
FIRST_IN_LINE = text(
    """
    WITH RECURSIVE line AS (
        (SELECT tenant_id FROM jobs WHERE state = 'queued' AND held_at IS NULL
         ORDER BY tenant_id LIMIT 1)
        UNION ALL
        SELECT (
            SELECT tenant_id FROM jobs
            WHERE state = 'queued' AND held_at IS NULL AND tenant_id > line.tenant_id
            ORDER BY tenant_id LIMIT 1
        )
        FROM line WHERE line.tenant_id IS NOT NULL
    ), free AS (
        SELECT first.* FROM line CROSS JOIN LATERAL (
            SELECT id, tenant_id, GREATEST(due_at, created_at) AS turn FROM jobs
            WHERE state = 'queued' AND held_at IS NULL AND tenant_id = line.tenant_id
            ORDER BY GREATEST(due_at, created_at), id LIMIT 1
        ) AS first
        UNION ALL
        SELECT id, tenant_id, GREATEST(due_at, created_at) FROM jobs
        WHERE state = 'running' AND lease_expires_at < clock_timestamp()
            AND held_at IS NULL AND cancel_requested_at IS NULL AND attempt < max_attempts
    )
    SELECT free.id FROM free JOIN tenants ON tenants.id = free.tenant_id
    CROSS JOIN LATERAL (
        SELECT count(*) AS jobs FROM jobs
        WHERE state = 'running' AND jobs.tenant_id = free.tenant_id
            AND lease_expires_at >= clock_timestamp()
    ) AS running
    ORDER BY
        running.jobs / COALESCE((CAST(:weights AS jsonb) ->> tenants.name)::float, 1),
        tenants.served_at NULLS FIRST, turn, free.id
    LIMIT 1
    """
)


def first_in_line(session: Session, weights: Mapping[str, float] | None = None) -> str | None:
    """Return the job whose turn it is, or None where none waits. It is not locked: somebody else
    may take it first.

    Args:
        session: its transaction.
        weights: by the names of tenants; a tenant of weight 2 has twice as many jobs running as
            others before it waits.
    """
    job_id: str | None = (
        session.connection().execute(FIRST_IN_LINE, {"weights": json.dumps(weights or {})}).scalar()
    )
    return job_id
