"""Commands about models on this machine: what an erasure changed in them, and other layouts of
them.
"""

from pathlib import Path
from typing import Annotated

import typer

Base = Annotated[
    Path, typer.Argument(exists=True, help="The model that the erasure began with: its folder.")
]


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (diff, apply, convert):
        app.command()(command)


def diff(
    base: Base,
    result: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="The published model's folder.")
    ],
    out: Annotated[Path, typer.Option(help="The delta to write.")],
) -> None:
    """Write what an erasure changed: the changed tensors alone, with the digests of both models."""
    from shared.weights.deltas import write_delta

    size = write_delta(base, result, out)
    typer.echo(f"{out}: {size.changed} of {size.of} tensors, {size.size_bytes} bytes")


def apply(
    delta: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="What `efface diff` wrote.")
    ],
    base: Base,
    out: Annotated[Path, typer.Option(help="The folder to write; new, or empty.")],
) -> None:
    """Make the published model of the one before and a delta, exact to the bit; another base is
    refused.
    """
    from shared.weights.deltas import apply_delta

    typer.echo(apply_delta(delta, base, out))


def convert(
    model: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="A folder in open_clip's layout.")
    ],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
) -> None:
    """Write a model as a CLIPModel of transformers."""
    from shared.weights.converted import to_transformers

    to_transformers(model, out)
    typer.echo(out)
