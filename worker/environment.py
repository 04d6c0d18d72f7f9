"""What a job's process is told by its environment: what it needs, by name, and nothing else.

It opens what strangers have uploaded. So it gets neither the database nor Redis, no key that
signs and no master key: the keys of its own data sets come opened, over the socket."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from shared.ports.object_storage import local_folder
from shared.settings import Settings

SETTINGS = frozenset(
    {
        "allow_hub",
        "child_memory_bytes",
        "device",
        "isolation",
        "kill_grace_seconds",
        "log_format",
        "log_level",
        "max_archive_expanded_bytes",
        "max_archive_images",
        "max_archive_ratio",
        "max_image_pixels",
        "pipeline",
        "image_digest",
        "storage_url",
    }
)
"""Settings that are handed on."""
NAMES = frozenset({"HOME", "LANG", "LANGUAGE", "LOGNAME", "PATH", "TZ", "USER", "XDG_CACHE_HOME"})
PREFIXES: tuple[str, ...] = (
    "CUDA_",
    "CUBLAS_",
    "CUDNN_",
    "GOMP_",
    "HF_HUB_CACHE",
    "HF_HOME",
    "HIP_",
    "KMP_",
    "LC_",
    "LD_LIBRARY_PATH",
    "MALLOC_",
    "MKL_",
    "NUMEXPR_",
    "NVIDIA_",
    "OMP_",
    "OPENBLAS_",
    "PYTHON",
    "PYTORCH_",
    "ROCR_",
    "TORCH",
)
NETWORK = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "SSL_CERT_")
HUB = ("HF_",)
CLOUDS = {
    "s3": ("AWS_",),
    "s3a": ("AWS_",),
    "gs": ("GOOGLE_",),
    "az": ("AZURE_",),
    "azure": ("AZURE_",),
}
"""Credentials by the scheme of the storage: those of its own cloud."""
ANY_CLOUD = ("AWS_", "GOOGLE_", "AZURE_")


def needs_network(settings: Settings) -> bool:
    """Return whether a job must reach anything by network: a storage that is no folder, or the
    hub.
    """
    return settings.allow_hub or local_folder(settings.storage_url) is None


def child_environment(settings: Settings, own: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment of a job's process.

    Args:
        settings: the worker's, which may come from a `.env` file that the child does not read.
        own: the worker's environment.
    """
    prefixes = PREFIXES
    if needs_network(settings):
        prefixes += NETWORK
    if local_folder(settings.storage_url) is None:
        prefixes += CLOUDS.get(settings.storage_url.split("://")[0], ANY_CLOUD)
    if settings.allow_hub:
        prefixes += HUB
    names = NAMES | set(settings.child_environment)
    kept = {
        name: value
        for name, value in own.items()
        if name in names or name.upper().startswith(prefixes)
    }
    return {
        name: value
        for name, value in kept.items()
        if not name.startswith("EFFACE_") or name in names
    } | _told(settings)


def _told(settings: Settings) -> dict[str, str]:
    values = settings.model_dump(mode="json", include=set(SETTINGS), exclude_none=True)
    if (folder := local_folder(settings.storage_url)) is not None:
        values["storage_url"] = f"file://{Path(folder)}"
    return {
        f"EFFACE_{name.upper()}": v if isinstance(v, str) else json.dumps(v)
        for name, v in values.items()
    }
