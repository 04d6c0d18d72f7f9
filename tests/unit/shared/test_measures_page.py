"""The page that explains the measures lists the catalogue as it is."""

from pathlib import Path

from shared.schemas.measure_catalogue import CATALOGUE, Entry

PAGE = Path(__file__).parents[3] / "docs" / "audit.md"


def row(name: str, entry: Entry) -> str:
    needs = ", ".join(entry.needs) or "nothing"
    return f"| `{name}` | {entry.definition.replace('|', chr(92) + '|')} | {needs} | {entry.level} | {entry.source} |"


def test_the_page_has_a_row_for_every_measure() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert [line for line in rows if line.split("`")[1] in CATALOGUE] == [row(*item) for item in CATALOGUE.items()]
