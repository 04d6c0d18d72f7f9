"""Exit codes, and the one line that goes with each."""

import os
from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING

from shared.errors import EffaceError, InvalidRequest, JobFailure

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


class ExitCode(IntEnum):
    """What a command's exit code says."""

    OK = 0
    """Done; for a job: it succeeded."""
    FAILURE = 1
    BAD_INPUT = 2
    THRESHOLD_MISSED = 3
    LOG_ALTERED = 4


BAD_INPUT_STATUSES = frozenset({400, 413, 415, 422})
NO_DATABASE = (
    "The database that EFFACE_DATABASE_URL names does not answer. Is it running? "
    "For a service that 'efface up' runs, give its folder: --home .efface (EFFACE_LOG_LEVEL=DEBUG "
    "shows more)."
)
THRESHOLDS_NOT_MET = "thresholds_not_met"


def explain(error: Exception) -> tuple[str, ExitCode]:
    """Return what to say about an error in one line, and the exit code.

    With EFFACE_LOG_LEVEL=DEBUG an error that nobody foresaw keeps its traceback.
    """
    from pydantic import ValidationError

    from api.client import ApiProblem, Unreachable

    match error:
        case ApiProblem():
            code = ExitCode.BAD_INPUT if error.status in BAD_INPUT_STATUSES else ExitCode.FAILURE
            return str(error), code
        case Unreachable():
            return str(error), ExitCode.FAILURE
        case InvalidRequest():
            return error.detail, ExitCode.BAD_INPUT
        case JobFailure():
            code = (
                ExitCode.THRESHOLD_MISSED if error.code == THRESHOLDS_NOT_MET else ExitCode.FAILURE
            )
            return error.detail, code
        case EffaceError():
            return error.detail, ExitCode.FAILURE
        case ValidationError(title="Settings"):
            return f"The settings are not valid. {_settings(error.errors())}", ExitCode.BAD_INPUT
    if os.environ.get("EFFACE_LOG_LEVEL") == "DEBUG":
        raise error
    if type(error).__name__ == "OperationalError" and "connection" in str(
        error
    ):  # SQLAlchemy's, not imported for this
        return NO_DATABASE, ExitCode.FAILURE
    words = str(error).strip().splitlines() or [""]
    return (
        f"{type(error).__name__}: {words[0]} (EFFACE_LOG_LEVEL=DEBUG shows where)",
        ExitCode.FAILURE,
    )


def _settings(errors: "Sequence[ErrorDetails]") -> str:
    """Name each variable that is wrong, and what is wrong with it."""
    found = (("_".join(map(str, e["loc"])), e["msg"].removeprefix("Value error, ")) for e in errors)
    return "; ".join(f"EFFACE_{name.upper()}: {words}" if name else words for name, words in found)
