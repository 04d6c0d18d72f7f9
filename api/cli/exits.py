"""Exit codes, and the one line that goes with each."""

import os
from enum import IntEnum

from shared.errors import EffaceError, InvalidRequest, JobFailure


class ExitCode(IntEnum):
    """What a command's exit code says."""

    OK = 0
    """Done; for a job: it succeeded."""
    FAILURE = 1
    BAD_INPUT = 2
    THRESHOLD_MISSED = 3
    LOG_ALTERED = 4


BAD_INPUT_STATUSES = frozenset({400, 413, 415, 422})
THRESHOLDS_NOT_MET = "thresholds_not_met"


def explain(error: Exception) -> tuple[str, ExitCode]:
    """Return what to say about an error in one line, and the exit code.

    With EFFACE_LOG_LEVEL=DEBUG an error that nobody foresaw keeps its traceback.
    """
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
            code = ExitCode.THRESHOLD_MISSED if error.code == THRESHOLDS_NOT_MET else ExitCode.FAILURE
            return error.detail, code
        case EffaceError():
            return error.detail, ExitCode.FAILURE
    if os.environ.get("EFFACE_LOG_LEVEL") == "DEBUG":
        raise error
    words = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {words[0]} (EFFACE_LOG_LEVEL=DEBUG shows where)", ExitCode.FAILURE
