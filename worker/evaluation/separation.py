"""No image in two roles: what must go and stay is refused, and what a method saw is not measured.

Files are compared by their SHA-256, so the same data set under two names is found as well.
Images that only look the same (`worker.data.lookalikes`) are counted and kept: nobody can tell a
second photograph from a second copy for certain."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor

from shared.errors import JobFailure
from shared.request_rules.roles import learns_from_images
from shared.schemas.report import SeenAs, Separation
from shared.schemas.request import ErasureRequest
from worker.data.images import ImageSet
from worker.data.lookalikes import lookalikes, thumbnails
from worker.data.splits import content_hashes, without
from worker.evaluation.evaluation import Measurement
from worker.methods.frame import MethodData

MOST_COMPARED = 10_000
"""Images of a set that are looked at for others that look the same, at most."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The data sets of a request, opened."""

    forget: ImageSet | None
    retain: ImageSet | None
    calibration: ImageSet | None
    proxy: ImageSet | None
    forget_test: ImageSet | None
    retain_test: ImageSet | None
    evaluation: tuple[ImageSet, ...]
    earlier: tuple[ImageSet, ...] = ()

    def of(self, role: SeenAs) -> list[ImageSet]:
        """Return the sets of a role that there are."""
        found = getattr(self, role)
        return list(found) if isinstance(found, tuple) else [found] if found is not None else []


def check_contradictions(opened: Opened) -> None:
    """Refuse images that are to go and to stay.

    Raises:
        JobFailure: `invalid_dataset`, with how many there are and the name of one.
    """
    gone: tuple[SeenAs, ...] = ("forget", "forget_test")
    for role in gone:
        for other, images in (("retain", opened.retain), ("retain_test", opened.retain_test)):
            for own in opened.of(role):
                _refuse_common(own, f"data.{role}", images, f"data.{other}")
    for images in opened.earlier:
        kept = content_hashes(opened.retain, opened.calibration, opened.retain_test)
        if content_hashes(images) & kept:
            raise JobFailure(
                "invalid_dataset",
                (
                    f"An image of {images.name!r} in data.earlier is also one that must stay; take "
                    "it "
                    "out of either."
                ),
            )


def separated(request: ErasureRequest, opened: Opened) -> tuple[Opened, tuple[Separation, ...]]:
    """Return the sets without the images that another role has taken, and how many these were.

    What a method learns to forget neither steers it as an image that stays nor is distilled; what
    it learns from, or is steered by, is not measured. Of a method that looks at no image nothing is
    left out.

    Raises:
        JobFailure: `invalid_dataset`: nothing would be left of a set.
    """
    if not learns_from_images(request):
        return opened, ()
    found: list[Separation] = []

    def less(images: ImageSet | None, place: str, *roles: SeenAs, advice: str) -> ImageSet | None:
        if images is None:
            return None
        rest, pairs = _left(images, place, {role: opened.of(role) for role in roles})
        found.extend(pairs)
        if not rest:
            raise JobFailure(
                "invalid_dataset",
                f"Every image of {_spoken(place)} is also one of {_all(roles)}; {advice}.",
            )
        return rest

    aside = "give others, or leave it out: a part of data.forget and data.retain is set aside"
    fresh = (
        "give images that the method does not see, or leave it out: a fifth of what it would "
        "learn from is held out"
    )
    learnt: tuple[SeenAs, ...] = ("forget", "retain", "calibration", "proxy")
    opened = replace(
        opened,
        calibration=less(opened.calibration, "data.calibration", "forget", "retain", advice=aside),
        proxy=less(
            opened.proxy,
            "data.proxy",
            "forget",
            "forget_test",
            "earlier",
            advice="give others, or leave it out",
        ),
    )
    gone: tuple[SeenAs, ...] = ("forget_test",) if request.target.type == "subgroup" else ()
    others = "give a set that the method does not see"
    earlier = [less(images, images.name, "forget", advice=fresh) for images in opened.earlier]
    opened = replace(
        opened,
        forget_test=less(opened.forget_test, "data.forget_test", *learnt, "earlier", advice=fresh),
        retain_test=less(opened.retain_test, "data.retain_test", *learnt, advice=fresh),
        earlier=tuple(images for images in earlier if images),
        evaluation=tuple(
            rest
            for images in opened.evaluation
            if (rest := less(images, images.name, *learnt, "earlier", *gone, advice=others))
        ),
    )
    return opened, tuple(found)


def check_target_left(
    request: ErasureRequest, labels: tuple[str, ...], before: Opened, after: Opened
) -> None:
    """Refuse a class of whose evaluation images none is left, or none of another label beside it.

    Raises:
        JobFailure: `invalid_dataset`.
    """
    names = set(request.target.names())
    stays = set(labels) - names
    if request.target.type == "subgroup" or (after.forget_test and after.retain_test):
        return
    showing = [
        (old, new)
        for old, new in zip(before.evaluation, after.evaluation, strict=True)
        if names & set(old.names())
    ]
    if not showing:
        return
    kept = [new for _, new in showing if names & set(new.names())]
    if not kept:
        raise JobFailure(
            "invalid_dataset",
            f"No image of the target is left to measure on: all of them in {showing[0][0].name!r} "
            "are also given to the"
            " method. Take some out of data.forget, or give data.evaluation images that the "
            "method does not see.",
        )
    old, new = next((old, new) for old, new in showing if new is kept[0])
    if stays & set(old.names()) and not stays & set(new.names()):
        raise JobFailure(
            "invalid_dataset",
            f"No image of what stays is left to measure on: all of them in {old.name!r} are also "
            "given to the method."
            " Take some out of data.retain, or give data.evaluation images that the method does "
            "not see.",
        )


def with_lookalikes(
    pairs: Sequence[Separation],
    request: ErasureRequest,
    opened: Opened,
    data: MethodData,
    measurements: Sequence[Measurement],
) -> tuple[Separation, ...]:
    """Return the pairs of sets with how many images only look the same, those pairs added that
    have no file in common.
    """
    if not learns_from_images(request):
        return tuple(pairs)
    seen = {
        role: pictures
        for role, sets in _seen(opened, data).items()
        if (pictures := _pictures(sets)).names
    }
    places = [(m.name, _pictures([m.images]), tuple(seen)) for m in measurements]
    if "retain" in seen and "forget" in seen:
        places.append(("data.retain", seen["retain"], ("forget",)))
    known = {(pair.place, pair.seen_as): pair for pair in pairs}
    for place, own, roles in places:
        for role in roles:
            pair = known.get((place, role)) or Separation(
                place=place, seen_as=role, identical=0, similar=0, compared=0
            )
            known[place, role] = _looked_at(pair, own, seen[role])
    return tuple(known.values())


class _Pictures(NamedTuple):
    """Images by their names, and their thumbnails [N, 768]."""

    names: list[str]
    thumbnails: Tensor


def _looked_at(pair: Separation, own: _Pictures, others: _Pictures) -> Separation:
    looks = (lookalikes(own.thumbnails, others.thumbnails) >= 0).tolist()
    alike = [name for name, found in zip(own.names, looks, strict=True) if found]
    example = pair.example or (alike[0] if alike else None)
    return pair.model_copy(
        update={"similar": len(alike), "compared": len(looks), "example": example}
    )


def _seen(opened: Opened, data: MethodData) -> Mapping[SeenAs, list[ImageSet]]:
    """Return what the method learns from by its role; what is set aside of forget and retain
    counts as theirs.
    """
    sets: dict[SeenAs, list[ImageSet | None]] = {
        "forget": [data.forget, data.calibration_forget],
        "retain": [data.retain, None if opened.calibration else data.calibration_retain],
        "calibration": [opened.calibration],
        "proxy": [opened.proxy],
        "earlier": [data.earlier],
    }
    return {role: [images for images in found if images] for role, found in sets.items()}


def _pictures(sets: Sequence[ImageSet]) -> _Pictures:
    names = {path: images.member(path) for images in sets for path in images.paths}
    paths = list(names)[:MOST_COMPARED]
    return _Pictures([names[path] for path in paths], thumbnails(paths))


def _left(
    images: ImageSet, place: str, others: Mapping[SeenAs, Sequence[ImageSet]]
) -> tuple[ImageSet, list[Separation]]:
    """Return the images that are in none of the others, and what each of these has taken."""
    hashes = images.hashes()
    pairs, seen = [], set[str]()
    for role, sets in others.items():
        if not sets:
            continue
        taken = content_hashes(*sets)
        common = [number for number, digest in enumerate(hashes) if digest in taken]
        example = images.member(images.paths[common[0]]) if common else None
        pairs.append(
            Separation(
                place=place,
                seen_as=role,
                identical=len(common),
                similar=0,
                compared=0,
                example=example,
            )
        )
        seen |= taken
    return without(images, seen), pairs


def _refuse_common(images: ImageSet, name: str, others: ImageSet | None, other_name: str) -> None:
    taken = content_hashes(others)
    common = (
        [
            path
            for path, digest in zip(images.paths, images.hashes(), strict=True)
            if digest in taken
        ]
        if taken
        else []
    )
    if common:
        count = f"{len(common)} images are" if len(common) > 1 else "One image is"
        raise JobFailure(
            "invalid_dataset",
            f"{count} in {name} and in {other_name} both, for example "
            f"{images.member(common[0])!r}: an image cannot be forgotten"
            " and kept. Take it out of one of the two.",
        )


def _spoken(place: str) -> str:
    return place if place.startswith("data.") else repr(place)


def _all(roles: tuple[SeenAs, ...]) -> str:
    return " or ".join(f"data.{role}" for role in roles)
