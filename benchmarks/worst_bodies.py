"""Claim: no JSON body of a size costs the gateway more than three times the processor time of a
plain one.

    python -m benchmarks.worst_bodies [--bytes 1000000]

Sends bodies that are as bad as they can be to every route that reads JSON, as the OpenAPI
document lists them, and prints the processor seconds of the gateway's process for each, beside
those of a plain body of the same size: a sound request with a field too many that holds ordinary
text. Times below the floor count as the floor: they stop nobody."""

import argparse
import gzip
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import httpx
import psutil

from benchmarks.service import gateway_alone

FLOOR_SECONDS = 0.05
LIMIT = 3.0
TRIES = 3
"""What costs too much is measured again: other processes disturb the caches of this one."""
MEMBERS = 1000
"""What one list or object may hold: worse bodies keep below it, or are refused at a glance."""


class Target(NamedTuple):
    """A route that reads JSON, and a body that it takes."""

    method: str
    path: str
    example: dict[str, Any]


class Body(NamedTuple):
    """What is sent."""

    content: bytes
    headers: tuple[tuple[str, str], ...] = ()


def targets(document: dict[str, Any]) -> Iterator[Target]:
    """Yield every route of an OpenAPI document that reads JSON."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            media = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if media is not None:
                example = (
                    media["example"]
                    if "example" in media
                    else next(iter(media["examples"].values()))["value"]
                )
                yield Target(method.upper(), path.format_map(_Nobody()), example)


class _Nobody(dict[str, str]):
    """Fills path parameters with ids that nobody has."""

    def __missing__(self, name: str) -> str:
        return f"{name}_x"


def plain(example: dict[str, Any], size: int) -> Body:
    """Return a sound body with a field too many, full of ordinary text."""
    text = "an ordinary line of text, about as long as most of them are"
    lines = max(1, size // (len(text) + 4))
    lists = [[text] * min(MEMBERS, lines - begin) for begin in range(0, lines, MEMBERS)]
    return Body(json.dumps(example | {"note": lists}).encode())


def _filled(size: int, unit: str, head: str = "[", tail: str = "1]") -> str:
    return head + unit * ((size - len(head) - len(tail)) // len(unit)) + tail


def _nested(size: int, unit: str) -> str:
    """Return as many lists as fit, each as long as may be."""
    row = "[" + ",".join([unit] * MEMBERS) + "]"
    return "[" + ",".join([row] * max(1, size // (len(row) + 1))) + "]"


def _tree(size: int, unit: str) -> str:
    """Return an object of lists of a few values: what unions and dictionaries of lists are
    checked with.
    """
    row = "[" + ",".join([unit] * (size // MEMBERS // (len(unit) + 1))) + "]"
    return "{" + ",".join(f'"k{number}":{row}' for number in range(MEMBERS)) + "}"


def _instead(fill: Callable[[int], str]) -> Callable[[dict[str, Any], int], Body]:
    """Return a body with the same bad value in the place of every field, and of every field of
    those that are objects.
    """

    def build(example: dict[str, Any], size: int) -> Body:
        count = sum(len(value) if isinstance(value, dict) else 1 for value in example.values())
        bad = fill(max(64, (size - 200) // count))
        fields = []
        for name, value in example.items():
            inner = (
                [
                    f"{json.dumps(n)}:{json.dumps(v) if n in ('type', 'name') else bad}"
                    for n, v in value.items()
                ]
                if (isinstance(value, dict))
                else []
            )
            fields.append(f"{json.dumps(name)}:{'{' + ','.join(inner) + '}' if inner else bad}")
        return Body(("{" + ",".join(fields) + "}").encode())

    return build


def _beside(fill: Callable[[int], str]) -> Callable[[dict[str, Any], int], Body]:
    """Return a sound body with more fields behind it."""

    def build(example: dict[str, Any], size: int) -> Body:
        sound = json.dumps(example)
        return Body((sound[:-1] + "," + fill(size - len(sound) - 2) + "}").encode())

    return build


def _fields(size: int) -> str:
    return ",".join(f'"f{number}":1' for number in range(size // 12))


def _bomb(_example: dict[str, Any], size: int) -> Body:
    packed = gzip.compress(b"[" + b" " * (size - 2) + b"]")
    return Body(packed, (("Content-Encoding", "gzip"),))


KINDS: dict[str, Callable[[dict[str, Any], int], Body]] = {
    "lists of wrong types": _instead(lambda size: _filled(size, "1,")),
    "lists of lists of wrong types": _instead(lambda size: _nested(size, "12345678")),
    "objects of lists of wrong types": _instead(lambda size: _tree(size, "12345678")),
    "lists of empty objects": _instead(lambda size: _filled(size, "{},")),
    "long text": _instead(lambda size: json.dumps("x" * size)),
    "long text of two bytes": _instead(lambda size: '"' + "é" * (size // 2) + '"'),
    "long text of marks": _instead(lambda size: '"' + "a" + "\u0301\u0323" * (size // 4) + '"'),
    "long text, escaped": _instead(lambda size: '"' + "\\u00e9" * (size // 6) + '"'),
    "huge numbers": _instead(lambda size: "9" * size),
    "many large numbers": _instead(lambda size: _filled(size, "9" * 4000 + ",")),
    "fractions": _instead(lambda size: _nested(size, "1.234567")),
    "unknown fields": _beside(_fields),
    "a thousand unknown fields of long names": _beside(
        lambda size: ",".join(
            f'"{"n" * (size // MEMBERS - 12)}{number}":1' for number in range(MEMBERS - 50)
        )
    ),
    "fields twice": _beside(lambda size: _fields(size - 12) + ',"f0":1'),
    "nested": _beside(lambda size: '"n":' + "[" * (size // 2) + "]" * (size // 2)),
    "nested objects": _beside(
        lambda size: '"n":' + '{"a":' * (size // 6) + "1" + "}" * (size // 6)
    ),
    "blanks": lambda example, size: Body(json.dumps(example).encode()[:-1] + b" " * size + b"?"),
    "packed blanks": _bomb,
}


def send(client: httpx.Client, target: Target, body: Body) -> httpx.Response:
    """Send one body."""
    headers = {"Content-Type": "application/json"} | dict(body.headers)
    return client.request(target.method, target.path, content=body.content, headers=headers)


def ratio(seconds: float, plain_seconds: float) -> float:
    """Return how much worse a body is than the plain one, both at least at the floor."""
    return max(seconds, FLOOR_SECONDS) / max(plain_seconds, FLOOR_SECONDS)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bytes", type=int, default=1_000_000)
    size = parser.parse_args().bytes
    with gateway_alone() as (service, _, process_id), service.client() as client:
        gateway = psutil.Process(process_id)

        def cost(target: Target, body: Body) -> tuple[float, int, int]:
            before = gateway.cpu_times()
            answer = send(client, target, body)
            after = gateway.cpu_times()
            seconds = after.user + after.system - before.user - before.system
            return seconds, answer.status_code, len(answer.content)

        worst = 0.0
        print(
            f"| route | body of {size:,} bytes | status | answer, bytes | CPU, s | ratio "
            "|\n|---|---|---|---|---|---|"
        )
        for target in targets(client.get("/openapi.json").json()):
            usual, status, length = cost(target, plain(target.example, size))
            route = f"{target.method} {target.path}"
            print(f"| {route} | plain | {status} | {length:,} | {usual:.2f} | |")
            for kind, build in KINDS.items():
                tries = (cost(target, build(target.example, size)) for _ in range(TRIES))
                seconds, status, length = next(
                    (c for c in tries if ratio(c[0], usual) <= LIMIT), None
                ) or cost(target, build(target.example, size))
                worst = max(worst, ratio(seconds, usual))
                times = ratio(seconds, usual)
                print(f"| {route} | {kind} | {status} | {length:,} | {seconds:.2f} | {times:.1f} |")
        print(
            f"\nThe worst ratio is {worst:.1f}; times below {FLOOR_SECONDS} s count as "
            f"{FLOOR_SECONDS} s."
        )


if __name__ == "__main__":
    main()
