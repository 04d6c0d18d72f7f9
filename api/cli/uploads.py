"""Commands about models and data sets."""

from pathlib import Path
from typing import Annotated

import typer

from api.cli.options import DEFAULT_URL, Key, Url, connect

Name = Annotated[str | None, typer.Option(help="What to call it; by default the name of the file.")]

SOURCES = ("hf-hub:", "local-dir:")

models = typer.Typer(no_args_is_help=True, help="Add, list and delete models.")
datasets = typer.Typer(no_args_is_help=True, help="Add, list and delete data sets.")


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(models, name="models")
    app.add_typer(datasets, name="datasets")


@models.command("add")
def add_model(
    path: Annotated[
        Path | None,
        typer.Argument(
            help=(
                "A folder in open_clip's local-dir layout, or a CLIPModel's of transformers; an "
                "archive of one, or a checkpoint."
            )
        ),
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Instead of a path: hf-hub:..., or local-dir:... there.")
    ] = None,
    architecture: Annotated[
        str | None, typer.Option(help="open_clip's name for it; for a bare checkpoint.")
    ] = None,
    pretrained: Annotated[
        str | None, typer.Option(help="With --architecture, instead of a path: its tag.")
    ] = None,
    name: Name = None,
    url: Url = DEFAULT_URL,
    key: Key = "",
) -> None:
    """Upload a model, or register one that the server can reach; print its id."""
    from api.cli.local_files import upload_model

    if path is not None and str(path).startswith(SOURCES):
        path, source = None, str(path)
    if path is not None and not path.exists():
        raise typer.BadParameter(
            f"there is no {path}; for a model of a hub, give hf-hub:owner/name", param_hint="PATH"
        )
    given = [path is not None, source is not None, pretrained is not None]
    if sum(given) != 1 or (pretrained is not None and architecture is None):
        raise typer.BadParameter(
            "give one of: a path; --source; --architecture with --pretrained", param_hint="PATH"
        )
    with connect(url, key) as client:
        if path is not None:
            added = upload_model(client, path, name=name, architecture=architecture)
        elif source is not None:
            added = client.register_model(name or source, {"source": source})
        else:
            reference = {"architecture": str(architecture), "pretrained": str(pretrained)}
            added = client.register_model(name or f"{architecture}/{pretrained}", reference)
    for warning in added.warnings:
        typer.echo(f"{warning.pointer}: {warning.detail}", err=True)
    typer.echo(added.id)


@models.command("list")
def list_models(url: Url = DEFAULT_URL, key: Key = "") -> None:
    """List models, newest first."""
    from api.cli.show import out, table

    rows = table("id", "name", "architecture", "parent", "created")
    with connect(url, key) as client:
        for model in client.models():
            created = f"{model.created_at:%Y-%m-%d %H:%M}"
            rows.add_row(
                model.id, model.name, model.architecture or "", model.parent or "", created
            )
    out.print(rows)


@models.command("rm")
def remove_model(
    model_id: Annotated[str, typer.Argument(help="The model's id.")],
    url: Url = DEFAULT_URL,
    key: Key = "",
) -> None:
    """Delete a model and its files; idempotent. Fails where an unfinished job uses it, and names
    that.
    """
    with connect(url, key) as client:
        receipt = client.delete_model(model_id)
    size = sum(found.bytes for found in receipt.objects)
    kept = f" Models made from it stay: {', '.join(receipt.children)}." if receipt.children else ""
    typer.echo(f"{model_id} is deleted: {len(receipt.objects)} objects, {size} bytes.{kept}")


@datasets.command("add")
def add_dataset(
    path: Annotated[
        Path,
        typer.Argument(
            exists=True,
            help=(
                "An archive of images, a Parquet file, or a folder of class folders or of "
                "shards, packed on the way."
            ),
        ),
    ],
    name: Name = None,
    purge: Annotated[
        bool | None,
        typer.Option(
            "--purge-after-job/--keep",
            help="Purge it with the last job that uses it, or keep it for the retention period; "
            "by default it is purged if a job is to forget it.",
        ),
    ] = None,
    skip_invalid: Annotated[
        bool,
        typer.Option(
            "--skip-invalid",
            help="Leave out what cannot be used, such as broken images, and count it.",
        ),
    ] = False,
    url: Url = DEFAULT_URL,
    key: Key = "",
) -> None:
    """Upload a data set; print its id, and on stderr what is odd about it."""
    from api.cli.local_files import upload_dataset
    from api.cli.show import err

    with connect(url, key) as client:
        added = upload_dataset(
            client, path, name=name, purge_after_job=purge, skip_invalid=skip_invalid
        )
    for warning in added.warnings:
        err.print(f"{path.name}: {warning}", markup=False)
    typer.echo(added.id)


@datasets.command("list")
def list_datasets(url: Url = DEFAULT_URL, key: Key = "") -> None:
    """List data sets, newest first."""
    from api.cli.show import out, table

    rows = table("id", "name", "images", "classes", "created")
    with connect(url, key) as client:
        for dataset in client.datasets():
            created = f"{dataset.created_at:%Y-%m-%d %H:%M}"
            rows.add_row(
                dataset.id, dataset.name, str(dataset.images), str(len(dataset.classes)), created
            )
    out.print(rows)


@datasets.command("rm")
def remove_dataset(
    dataset_id: Annotated[str, typer.Argument(help="The data set's id.")],
    url: Url = DEFAULT_URL,
    key: Key = "",
) -> None:
    """Purge a data set at once; idempotent. Fails where an unfinished job uses it, and names
    that.
    """
    with connect(url, key) as client:
        receipt = client.delete_dataset(dataset_id)
    size = sum(found.bytes for found in receipt.objects)
    typer.echo(
        f"{dataset_id} is purged: {len(receipt.objects)} objects, {size} bytes; {receipt.reason}."
    )
