"""What Fides itself makes of the connector. Runs where `ethyca-fides` is installed; imports nothing
of ours.

    python check.py connector.zip < values.json

Reads what a privacy request and the connector's secrets give. Writes the requests that Fides
would send as JSON, after Fides' own models have accepted every file. With `responses` in the
input it also says which of them Fides takes for the end of the erasure."""

import json
import sys
from typing import Any
from zipfile import ZipFile

import requests
from fides.api.schemas.saas.async_polling_configuration import AsyncPollingConfiguration
from fides.api.schemas.saas.connector_template import ConnectorTemplate
from fides.api.schemas.saas.saas_config import SaaSConfig, SaaSRequest
from fides.api.service.async_dsr.handlers.polling_response_handler import PollingResponseProcessor
from fides.api.util.saas_util import (
    load_config_from_string,
    load_dataset_from_string,
    map_param_values,
    replace_config_placeholders,
    replace_dataset_placeholders,
)
from fides.api.util.unsafe_file_util import verify_svg, verify_zip
from fideslang.models import Dataset

INSTANCE = "<instance_fides_key>"


def checked(path: str) -> SaaSConfig:
    """Return the configuration of a zip that Fides accepts whole."""
    with ZipFile(path) as archive:
        verify_zip(archive)
        files = {
            name.rpartition(".")[0] or name: archive.read(name).decode()
            for name in archive.namelist()
        }
    verify_svg(files["icon"])
    config = SaaSConfig(**load_config_from_string(files["config"]))
    ConnectorTemplate(
        config=files["config"],
        dataset=files["dataset"],
        icon=files["icon"],
        human_readable=config.name,
        authorization_required=False,
        supported_actions=config.supported_actions,
    )
    Dataset(**replace_dataset_placeholders(files["dataset"], INSTANCE, "efface_1"))
    Dataset(**load_dataset_from_string(files["dataset"]))
    instance = SaaSConfig(**replace_config_placeholders(files["config"], INSTANCE, "efface_1"))
    instance.get_graph({})
    return instance


def built(action: str, request: SaaSRequest, values: dict[str, Any]) -> dict[str, Any]:
    """Return a request with its placeholders filled in by Fides."""
    filled: dict[str, Any] = map_param_values(action, "the erasure", request, values).model_dump(
        mode="json"
    )
    return filled


def main() -> None:
    """Check the zip, and write what it does."""
    config, given = checked(sys.argv[1]), json.load(sys.stdin)
    erasure = config.endpoints[0].requests.delete
    found: dict[str, Any] = {
        "supported_actions": [action.value for action in config.supported_actions],
        "strategy": erasure.async_config.strategy,
        "correlation_id_path": erasure.correlation_id_path,
        "test": built("test", config.test_request, given["values"]),
        "erasure": built("delete", erasure, given["values"]),
    }
    if erasure.async_config.strategy == "polling":
        polling = AsyncPollingConfiguration(**erasure.async_config.configuration)
        values = given["values"] | {"correlation_id": given["job"]}
        found["status"] = built("status", polling.status_request, values)
        found["completed"] = [completed(polling, response) for response in given["responses"]]
    json.dump(found, sys.stdout)


def completed(polling: AsyncPollingConfiguration, given: dict[str, Any]) -> bool:
    """Return whether Fides takes a response for the end."""
    response = requests.Response()
    response.status_code, response._content = given["status"], given["body"].encode()
    response.headers["Content-Type"] = given["type"]
    request = polling.status_request
    return response.ok and PollingResponseProcessor.evaluate_status_response(
        response, request.status_path, request.status_completed_value
    )


if __name__ == "__main__":
    main()
