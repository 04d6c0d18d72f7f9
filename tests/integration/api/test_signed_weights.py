"""Weights on a real S3 server: the API sends the client there."""

import httpx

from api.client import Client
from tests.integration.api.conftest import WEIGHTS, JobMaker
from tests.integration.shared.ports.test_object_storage import s3, s3_endpoint  # noqa: F401 - fixtures


def test_weights_are_a_redirect_to_a_signed_url(s3, serve, settings, make_key, database, request_body, tmp_path):  # noqa: F811
    settings = settings.model_copy(update={"storage_url": s3.url})
    url, key = serve(settings), make_key()
    job_id = JobMaker(database, s3, settings, request_body).succeeded()
    headers = {"Authorization": f"Bearer {key}"}

    answer = httpx.get(f"{url}/jobs/{job_id}/weights", headers=headers)
    signed = httpx.get(answer.headers["Location"], headers={"Range": "bytes=5-9"})
    with Client(url, key) as client:
        folder = client.weights(job_id, tmp_path / "model")

    assert answer.status_code == 307
    assert key not in answer.headers["Location"]
    assert (signed.status_code, signed.content) == (206, WEIGHTS[5:10])
    assert (folder / "open_clip_model.safetensors").read_bytes() == WEIGHTS
