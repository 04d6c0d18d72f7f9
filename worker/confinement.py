"""What a job's process gives up before it opens anything: dumps, new privileges, and the network
where it needs none.
"""

import ctypes
import os
import resource
import sys
from contextlib import suppress
from pathlib import Path

from shared.settings import Settings
from worker.environment import needs_network

_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000


def confine(settings: Settings) -> str:
    """Confine this process, for good, and return how far that went, as words with commas between.

    Call it before anything starts a thread: the kernel gives a namespace to a process of one
    thread alone."""
    done = ["no core dumps"]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if settings.child_memory_bytes:
        resource.setrlimit(
            resource.RLIMIT_AS, (settings.child_memory_bytes, settings.child_memory_bytes)
        )
        done.append("bounded memory")
    if sys.platform != "linux":
        return ", ".join([*done, "network (not Linux)"])
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
        done.append("no new privileges")
    return ", ".join([*done, _without_network(libc, settings)])


def _without_network(libc: ctypes.CDLL, settings: Settings) -> str:
    """Move into a network of our own, which reaches nothing; return what came of it."""
    if settings.isolation == "off":
        return "network (EFFACE_ISOLATION is off)"
    if needs_network(settings):
        return "network (the storage or the hub needs it)"
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        return f"network (the kernel refuses a namespace: {os.strerror(ctypes.get_errno())})"
    own = Path("/proc/self")
    with suppress(
        OSError
    ):  # unmapped, we are called nobody, but may open what we could open before
        (own / "setgroups").write_text("deny")
        (own / "uid_map").write_text(f"{user} {user} 1")
        (own / "gid_map").write_text(f"{group} {group} 1")
    return "no network"
