"""The published JSON Schema of the report: `python -m shared.schemas.publish` writes it anew
after a change of the models.
"""

import json
from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from shared.schemas.report import REPORT_VERSION, Report

DIALECT = "https://json-schema.org/draft/2020-12/schema"
REPORT_SCHEMA_FILE = Path(__file__).parent / "published" / f"report-{REPORT_VERSION}.json"


class _Complete(GenerateJsonSchema):
    """Every field is there in what a report is written as, whether it has a default or not."""

    def field_is_required(self, *_: Any, **__: Any) -> bool:  # noqa: ANN401 - whatever the field is
        return True


def report_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of `report.json` as this version writes it."""
    identity = {"$schema": DIALECT, "$id": f"urn:efface:report:{REPORT_VERSION}"}
    schema = Report.model_json_schema(
        by_alias=True, mode="serialization", schema_generator=_Complete
    )
    return identity | schema | {"title": f"Efface erasure report {REPORT_VERSION}"}


def published_text() -> str:
    """Return the content that the published file must have."""
    return json.dumps(report_schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    REPORT_SCHEMA_FILE.write_text(published_text(), encoding="utf-8")
