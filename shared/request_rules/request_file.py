"""A REQUEST.json, read as strictly as the body of `POST /jobs` and with the same words for what
is wrong.
"""

import json
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from shared.errors import InvalidRequest
from shared.schemas.request import ErasureRequest
from shared.schemas.validation_errors import invalid_request
from shared.strict_json import loads


def read_request(path: Path) -> tuple[dict[str, Any], ErasureRequest]:
    """Return the request in a file, as it stands there and as what it says.

    Raises:
        InvalidRequest: it cannot be read, is not JSON, or fields of it are wrong.
    """
    try:
        body = loads(path.read_bytes())
    except OSError as error:
        raise InvalidRequest.at("", f"{path} cannot be read: {error.strerror or error}") from error
    except json.JSONDecodeError as error:
        raise InvalidRequest.at("", f"{path} is not acceptable JSON: {error.msg}") from error
    try:
        request = ErasureRequest.model_validate(body)
    except ValidationError as error:
        raise invalid_request(error, body) from error
    return cast(dict[str, Any], body), request  # an erasure request is an object
