"""Older versions of objects. A bucket that keeps versions keeps what was deleted, so they are
deleted, too.

obstore has no call for this, so S3 is asked by its own client. What other clouds keep ("soft
delete") is not seen."""

import os
from typing import Literal
from urllib.parse import urlsplit

import structlog

from shared.errors import Unavailable

Versions = Literal["none", "deleted", "unknown"]
"""The storage keeps none; they were deleted; the storage does not say, or does not let us."""

log = structlog.get_logger()


def delete_versions(url: str, prefix: str, kept: str | None = None) -> Versions:
    """Delete every version and delete marker of the objects at or below `prefix`, but of those
    below `kept`.

    Args:
        url: of the storage, as in `Storage.url`.
        prefix: whole path parts, relative to it.
        kept: a prefix below `prefix` whose objects stay, with their versions.

    Raises:
        Unavailable: the storage did not delete them all.
    """
    if url.startswith("file://"):
        return "none"
    if not url.startswith(("s3://", "s3a://")):
        return "unknown"
    from boto3 import resource  # half a second of imports that only S3 needs
    from botocore.exceptions import BotoCoreError, ClientError

    place = urlsplit(url)
    folder = f"{place.path.strip('/')}/".lstrip("/")
    endpoint = os.environ.get("AWS_ENDPOINT") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    s3 = resource("s3", endpoint_url=endpoint, region_name=region)
    try:
        if s3.BucketVersioning(place.netloc).status not in ("Enabled", "Suspended"):
            return "none"
    except (BotoCoreError, ClientError) as error:
        log.warning("storage.versions_unknown", error=str(error))
        return "unknown"
    try:
        for version in s3.Bucket(place.netloc).object_versions.filter(Prefix=f"{folder}{prefix}"):
            key = version.object_key.removeprefix(folder)
            below = key == prefix or key.startswith(f"{prefix}/")
            if below and not (kept and key.startswith(f"{kept}/")):
                version.delete()
    except (BotoCoreError, ClientError) as error:
        raise Unavailable(
            f"The object storage did not delete the versions of {prefix!r}: {error}"
        ) from error
    return "deleted"
