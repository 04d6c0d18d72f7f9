"""Bodies that a client has compressed: decoded within bounds, or refused by name."""

import gzip
import io
import json
import zlib

import httpx
import pytest

from tests.support.problems import assert_problem

JSON = {"Content-Type": "application/json"}


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def in_members(data: bytes) -> bytes:
    half = len(data) // 2
    return gzip.compress(data[:half]) + gzip.compress(data[half:])


CODINGS = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("x-gzip", gzip.compress),
    "gzip in upper case": ("GZIP", gzip.compress),
    "gzip of two members": ("gzip", in_members),
    "deflate": ("deflate", zlib.compress),
    "deflate without header": ("deflate", raw_deflate),
    "identity": ("identity", bytes),
}
codings = pytest.mark.parametrize(("coding", "pack"), CODINGS.values(), ids=CODINGS)


@codings
def test_a_json_body_is_decoded(alice, request_body, coding, pack):
    body = pack(json.dumps(request_body).encode())
    response = alice.post("/jobs?validate_only=true", content=body, headers=JSON | {"Content-Encoding": coding})

    assert response.status_code == 200, response.text


@codings
def test_an_upload_is_decoded(alice, archive, coding, pack):
    content = pack(archive.read_bytes())
    added = alice.post("/datasets?name=farm", content=content, headers={"Content-Encoding": coding})

    assert added.status_code == 201, added.text
    assert added.json()["size_bytes"] == archive.stat().st_size


def test_a_form_and_a_token_request_are_decoded(alice, server, make_key, archive):
    form = httpx.Request("POST", "http://x", files={"file": archive.read_bytes()}, data={"name": "farm"})
    headers = {"Content-Type": form.headers["Content-Type"], "Content-Encoding": "gzip"}
    added = alice.post("/datasets", content=gzip.compress(form.read()), headers=headers)
    secret = make_key()
    listed = httpx.get(f"{server}/keys", headers={"Authorization": f"Bearer {secret}"}).json()["data"]
    fields = {"Content-Type": "application/x-www-form-urlencoded", "Content-Encoding": "gzip"}
    packed = gzip.compress(b"grant_type=client_credentials")
    token = httpx.post(f"{server}/oauth/token", content=packed, headers=fields, auth=(listed[0]["id"], secret))

    assert added.status_code == 201, added.text
    assert token.status_code == 200, token.text


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "aes128gcm", "x" * 500])
@pytest.mark.parametrize("path", ["/jobs", "/datasets?name=x"])
def test_another_coding_is_415_and_says_which_are_taken(alice, path, coding):
    response = alice.post(path, content=b"x", headers=JSON | {"Content-Encoding": coding})

    problem = assert_problem(response, 415, "unsupported_media_type")
    assert "send gzip or deflate" in problem["detail"]
    assert response.headers["Accept-Encoding"] == "gzip, deflate"
    assert len(response.content) < 1000


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda packed: packed[:-4], "is cut off"),
        (lambda packed: packed[:20] + b"\xff" * 20 + packed[40:], "is damaged"),
        (lambda packed: packed + b"no member", "is damaged"),
        (lambda packed: b"{}", "is damaged"),
    ],
    ids=["cut off", "damaged", "more behind it", "not packed"],
)
def test_what_cannot_be_decoded_is_422(alice, request_body, spoil, says):
    body = spoil(gzip.compress(json.dumps(request_body).encode()))
    response = alice.post("/jobs", content=body, headers=JSON | {"Content-Encoding": "gzip"})

    assert says in assert_problem(response, 422, "invalid_request")["detail"]


def test_what_comes_out_counts_against_the_limit(alice, settings):
    body = gzip.compress(b" " * (settings.max_body_bytes + 1))
    assert_problem(alice.post("/jobs", content=body, headers=JSON | {"Content-Encoding": "gzip"}), 413, "too_large")

    nothing = gzip.compress(b"") * (settings.max_body_bytes // 20)
    refused = alice.post("/jobs", content=nothing, headers=JSON | {"Content-Encoding": "gzip"})
    assert refused.status_code in (413, 422)


def test_a_bomb_is_stopped_on_the_way(serve, settings, make_key):
    url = serve(settings.model_copy(update={"max_upload_bytes": 1024**3}))
    packed = gzip.compress(bytes(100 * 1024 * 1024))
    headers = {"Authorization": f"Bearer {make_key()}", "Content-Encoding": "gzip"}
    response = httpx.post(f"{url}/datasets?name=x", content=packed, headers=headers, timeout=60)

    assert "200 times its size" in assert_problem(response, 413, "too_large")["detail"]


def test_a_packed_upload_over_the_limit_is_413(serve, settings, make_key):
    url = serve(settings.model_copy(update={"max_upload_bytes": 10_000}))
    noise = io.BytesIO(bytes(range(256)) * 100).read()
    headers = {"Authorization": f"Bearer {make_key()}", "Content-Encoding": "gzip"}
    response = httpx.post(f"{url}/datasets?name=x", content=gzip.compress(noise), headers=headers)

    assert_problem(response, 413, "too_large")
