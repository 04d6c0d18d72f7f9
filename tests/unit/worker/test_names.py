"""Two names are one exactly where CLIP's own tokenizer makes the same tokens of their prompts."""

import random

import pytest
from open_clip.tokenizer import SimpleTokenizer

from shared.names import CONTEXT_TOKENS, cut_off, given_twice, like, name_key, spoken
from worker.clip.classifier import prompts

TEMPLATE = "a photo of a {}."
PIECES = [*"abcAB12 _'\u2019\u201c\u201d&;-.!\u00e9\u00c9\u00dfK\u00b2\uff21\uff42\ufb01\u2026\u00c3\u00a9<>\u00a0"]
PIECES += ["&amp;", "&#39;", "&quot;", "'s", "n't", "\u00c3\u00a9", "caf\u00c3\u00a9", "e\u0301", "\U0001f600"]


@pytest.fixture(scope="module")
def tokenizer() -> SimpleTokenizer:
    """CLIP's."""
    return SimpleTokenizer()


def tokens(tokenizer: SimpleTokenizer, name: str) -> tuple[int, ...]:
    (prompt,) = prompts(name, (TEMPLATE,))
    return tuple(tokenizer.encode(prompt))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Horse", "horse", True),
        ("fire_truck", "fire  Truck", True),
        ("rock &amp; roll", "rock & roll", True),
        ("rock &amp;amp; roll", "rock&roll", True),
        ("potter's", "potter\u2019s", True),
        ('"x"', "\u201cx\u201d", True),
        ("caf\u00c3\u00a9", "caf\u00e9", True),
        ("cafe\u0301", "caf\u00e9", True),
        ("\uff43\uff4f\uff57", "cow", True),
        ("\ufb01sh", "fish", True),
        ("Boeing 737", "boeing737", True),
        ("stra\u00dfe", "STRASSE", False),
        ("caf\u00e9", "cafe", False),
        ("t-shirt", "t shirt", False),
        ("horse", "horses", False),
        ("m\u00b2", "m2", False),
    ],
)
def test_names_that_are_one_and_names_that_are_two(
    tokenizer: SimpleTokenizer, one: str, other: str, same: bool
) -> None:
    assert (tokens(tokenizer, one) == tokens(tokenizer, other)) is same
    assert (name_key(one) == name_key(other)) is same
    assert bool(given_twice([one, "zebra", other])) is same


def test_thousands_of_odd_names(tokenizer: SimpleTokenizer) -> None:
    drawn = random.Random(0)
    names = {"".join(drawn.choices(PIECES, k=drawn.randint(1, 5))) for _ in range(6000)}
    read = {name: (name_key(name), tuple(tokenizer.encode(name.replace("_", " ")))) for name in names}
    keys, ids = ({pair[part] for pair in read.values()} for part in (0, 1))
    assert len(keys) == len(ids) == len(set(read.values()))


@pytest.mark.parametrize("name", ["Horse", "caf\u00c3\u00a9 &amp; bar", "Fire_Truck", "\u201cx\u201d"])
def test_a_name_is_spoken_as_it_is_read(tokenizer: SimpleTokenizer, name: str) -> None:
    assert tokenizer.encode(spoken(name)) == tokenizer.encode(name.replace("_", " "))


def test_labels_that_differ_after_what_clip_reads(tokenizer: SimpleTokenizer) -> None:
    late = ["1" * 99 + "a", "1" * 99 + "b"]
    assert cut_off(late, [TEMPLATE]) == late
    assert len({tokens(tokenizer, label)[:CONTEXT_TOKENS] for label in late}) == 1
    assert cut_off(late, [TEMPLATE, "{}"]) == late
    assert cut_off(["1" * 60 + "a", "1" * 60 + "b"], [TEMPLATE]) == []
    assert cut_off(["a" * 99 + "b", "a" * 99 + "c"], [TEMPLATE]) == []  # one word of a few tokens
    long = "the " * 45 + "{}"
    assert cut_off(["horse", "dog"], [long]) == []
    assert cut_off(["horse", "dog"], ["a, " * 40 + "{}"]) == ["dog", "horse"]
    assert cut_off(["horse", "dog"], ["a, " * 40 + "{}", TEMPLATE]) == []


@pytest.mark.parametrize(
    ("name", "others", "near"),
    [
        ("horse", ["dog", "horses"], "horses"),
        ("buses", ["bus"], "bus"),
        ("caf\u00e9", ["cafe"], "cafe"),
        ("fire-truck", ["fire truck"], "fire truck"),
        ("T-Shirt", ["tshirt"], "tshirt"),
        ("horse", ["house", "nurse", "hose"], None),
        ("cat", ["car", "bat", "category"], None),
        ("s", ["es"], None),
    ],
)
def test_what_is_probably_meant(name: str, others: list[str], near: str | None) -> None:
    assert like(name, others) == near
