"""What an erasure left, for a browser: report, certificate, weights, receipt. Each fetch is on
record as the API's is.
"""

import json

from fastapi import APIRouter, Response

from api.console.page import Page
from api.dependencies import BeginDep, JobReader, PartsDep
from api.routes import artifacts, certificates
from services.purging import job_leftovers

router = APIRouter(prefix="/erasures/{job_id}", route_class=Page)


def _named(response: Response, name: str) -> Response:
    """Have a browser save the answer under this name."""
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


@router.get("/report")
def report_page(job_id: str, begin: BeginDep, parts: PartsDep, caller: JobReader) -> Response:
    """Show the report."""
    response = artifacts.report_page(job_id, begin, parts, caller, head=False)
    response.headers["Cache-Control"] = "no-store"
    return response


@router.get("/report.json")
def report_file(job_id: str, begin: BeginDep, parts: PartsDep, caller: JobReader) -> Response:
    """Save the report as JSON."""
    return _named(
        artifacts.report(job_id, begin, parts, caller, head=False), f"report-{job_id}.json"
    )


@router.get("/certificate.json")
def certificate(job_id: str, begin: BeginDep, parts: PartsDep, caller: JobReader) -> Response:
    """Save the last certificate."""
    return _named(
        certificates.certificate(job_id, begin, parts, caller), f"certificate-{job_id}.json"
    )


@router.get("/weights")
def weights(job_id: str, begin: BeginDep, parts: PartsDep, caller: JobReader) -> Response:
    """Save the published weights."""
    return artifacts.weights(job_id, begin, parts, caller, head=False)


@router.get("/config")
def config(job_id: str, begin: BeginDep, parts: PartsDep, caller: JobReader) -> Response:
    """Save the configuration that open_clip reads beside the weights."""
    return artifacts.weights(job_id, begin, parts, caller, head=False, file="open_clip_config.json")


@router.get("/purge-receipt.json")
def purge_receipt(job_id: str, begin: BeginDep, caller: JobReader) -> Response:
    """Save the receipt of what was deleted."""
    with begin() as session:
        receipt = job_leftovers.receipt(session, caller.tenant_id, job_id)
    content = json.dumps(receipt.model_dump(mode="json"), indent=1)
    return _named(Response(content, media_type="application/json"), f"purge-receipt-{job_id}.json")
