"""The least that an endpoint can do and still keep what it is given: one JSON body, one INSERT, one
commit.

What `POST /jobs` is measured against. It has the same server, the same driver and the same
connection pool, and neither keys, checks, logs, metrics nor a queue. `python -m benchmarks.bare
PORT`, with `EFFACE_DATABASE_URL`."""

import sys
from typing import Any
from uuid import uuid4

import uvicorn
from fastapi import Body, FastAPI
from sqlalchemy import Column, MetaData, Table, Text, insert
from sqlalchemy.dialects.postgresql import JSONB

from shared.postgres.database import make_engine
from shared.settings import Settings

TABLE = Table(
    "bare_inserts",
    MetaData(),
    Column("id", Text, primary_key=True),
    Column("body", JSONB, nullable=False),
)


def bare_app(settings: Settings) -> FastAPI:
    """Return the application; its table is made here."""
    app, engine = FastAPI(), make_engine(settings)
    TABLE.metadata.create_all(engine)

    @app.post("/", status_code=201)
    def keep(body: Any = Body()) -> dict[str, str]:  # noqa: ANN401, B008 - any JSON; FastAPI's way to say so
        row = {"id": str(uuid4()), "body": body}
        with engine.begin() as connection:
            connection.execute(insert(TABLE).values(row))
        return {"id": row["id"]}

    return app


if __name__ == "__main__":
    uvicorn.run(bare_app(Settings()), port=int(sys.argv[1]), log_level="warning", access_log=False)
