"""Packs the bench images (CIFAR-10 and PACS, see benchmarks/README.md) into the archives that the
requests name.

python -m benchmarks.bench_archives [--data bench-data]
"""

import argparse
import random
import tarfile
from pathlib import Path

FORGET_IMAGES = 96
RETAIN_IMAGES = 192


def write_tar(path: Path, members: list[tuple[str, Path]]) -> None:
    """Write a tar of (name in the archive, file) pairs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, file in sorted(members):
            tar.add(file, name)
    print(f"{path}: {len(members)} images")


def cells(root: Path) -> list[tuple[str, str, Path]]:
    """Return (domain, class, file) of every PACS image below `root`."""
    return [(f.parts[-3], f.parts[-2], f) for f in sorted(root.glob("*/*/*.png"))]


def named(images: list[tuple[str, str, Path]]) -> list[tuple[str, Path]]:
    """Name PACS images `<class>/<domain>_<number>.png`."""
    return [(f"{label}/{domain}_{file.name}", file) for domain, label, file in images]


def subgroup(data: Path, domain: str, label: str) -> None:
    """Write the four archives of a subgroup request: half of the retain images are siblings,
    half are other classes.
    """
    out, rng = data / "archives", random.Random(0)
    stem = f"pacs_{label}_{domain}"
    train, test = cells(data / "pacs" / "train"), cells(data / "pacs" / "test")
    rng.shuffle(train)
    forget = [c for c in train if c[:2] == (domain, label)]
    siblings = [c for c in train if c[1] == label and c[0] != domain]
    others = [c for c in train if c[1] != label]
    half = RETAIN_IMAGES // 2
    write_tar(out / f"{stem}_forget.tar", named(forget[:FORGET_IMAGES]))
    write_tar(out / f"{stem}_retain.tar", named(siblings[:half] + others[:half]))
    write_tar(out / f"{stem}_forget_test.tar", named([c for c in test if c[:2] == (domain, label)]))
    write_tar(out / f"{stem}_retain_test.tar", named([c for c in test if c[:2] != (domain, label)]))


def main() -> None:
    """Write every archive."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("bench-data"))
    data = parser.parse_args().data
    cifar = sorted((data / "cifar10" / "test").glob("*/*.png"))
    write_tar(
        data / "archives" / "cifar10_test.tar", [(f"{f.parent.name}/{f.name}", f) for f in cifar]
    )
    tenth = cifar[::10]  # every tenth of the sorted files: 100 of each class
    write_tar(
        data / "archives" / "cifar10_test_1000.tar",
        [(f"{f.parent.name}/{f.name}", f) for f in tenth],
    )
    write_tar(data / "archives" / "pacs_test.tar", named(cells(data / "pacs" / "test")))
    subgroup(data, "sketch", "elephant")


if __name__ == "__main__":
    main()
