"""Claim: what a method reaches on average over seeds, and what it reaches with the worst of them.

    python -m benchmarks.three_stage --seeds 0 1 2 --out rows.json ...
    python -m benchmarks.seeds rows.json [more.json ...]

One line for each model, task and method; rows of several files are taken together, and a row
that two of them have is refused. Before the slash stands the mean, after it the worst run: the
lowest of what is kept and of the Score, the highest of the others. Seconds are those of all
stages."""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean
from typing import Any

KEPT = ("siblings", "others", "transfer")


def groups(files: list[Path]) -> dict[tuple[str, str, str], dict[int, dict[str, Any]]]:
    """Return the rows by (model, task, method) and seed.

    Raises:
        ValueError: two rows are of the same run.
    """
    found: dict[tuple[str, str, str], dict[int, dict[str, Any]]] = {}
    for row in (row for file in files for row in json.loads(file.read_text())):
        seeds = found.setdefault((row["model"], row["task"], row["method"]), {})
        if row["seed"] in seeds:
            raise ValueError(
                f"two rows of {row['model']}, {row['task']}, {row['method']}, seed {row['seed']}"
            )
        seeds[row["seed"]] = row
    return found


def cells(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the columns of one line: percent, and seconds in the last."""
    yield both([row["accuracy"]["target"] for row in rows], max)
    for name in KEPT:
        values = [row["accuracy"][name] for row in rows if name in row["accuracy"]]
        yield both(values, min) if values else "-"
    yield both([row["worst"] for row in rows], max)
    yield both([row["probe"] for row in rows], max)
    yield both([row["score"] for row in rows], min)
    yield (
        both([sum(row["seconds"]) for row in rows], max)
        if any(row["seconds"] for row in rows)
        else "-"
    )


def both(values: list[float], worst: Callable[[list[float]], float]) -> str:
    """Return the mean and the worst of some values."""
    return f"{mean(values):.1f} / {worst(values):.1f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "files", nargs="+", type=Path, help="what `benchmarks.three_stage --out` wrote"
    )
    files = parser.parse_args().files
    try:
        found = groups(files)
    except (OSError, ValueError) as error:
        parser.error(f"cannot take these rows together: {error}")
    except (KeyError, TypeError):
        parser.error("a file does not hold rows as `benchmarks.three_stage --out` writes them")
    heads = ("target", *KEPT, "worst", "probe", "score", "seconds")
    print(
        f"{'model':10} {'task':20} {'method':22} seeds " + " ".join(f"{head:>13}" for head in heads)
    )
    for (model, task, method), rows in found.items():
        columns = " ".join(f"{cell:>13}" for cell in cells(list(rows.values())))
        print(f"{model:10} {task:20} {method:22} {len(rows):5} {columns}")


if __name__ == "__main__":
    main()
