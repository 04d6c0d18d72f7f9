"""The erasure request: what to forget in which model, by which method, judged on what."""

from collections.abc import Iterator
from difflib import get_close_matches
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from shared.names import CONTEXT_TOKENS, Spellings, cut_off, given_twice, like, name_key, spoken
from shared.schemas.audit import Audit, MeasureThreshold
from shared.schemas.base import Fraction, Identifier, Label, Moment, Reference, Schema, wrong_fields
from shared.schemas.measure_catalogue import RESERVED
from shared.schemas.methods import METHOD_PARAMETERS, MethodParameters
from shared.schemas.model_reference import ModelReference

DEFAULT_TEMPLATES = ("a photo of a {}.",)
MAX_LABELS = 1000
Names = Annotated[tuple[Label, ...], Field(max_length=MAX_LABELS)]


def _one_slot(template: str) -> str:
    if template.count("{}") != 1 or template.replace("{}", "").count("{"):
        raise ValueError(
            "must hold {} exactly once: the place of the class name, as in 'a photo of a {}.'"
        )
    if not template.isprintable():
        raise ValueError("must not hold control characters or line breaks")
    return template


def _unique(labels: tuple[str, ...]) -> tuple[str, ...]:
    if twice := given_twice(labels):
        raise ValueError(
            f"names {', '.join(map(repr, twice))} more than once: for CLIP's tokenizers they are "
            "one (case, width, quotes,"
            " white space, underscores and HTML make no difference); leave one of them"
        )
    return labels


def _cut_off(labels: tuple[str, ...], templates: tuple[str, ...]) -> str | None:
    """Return why CLIP cannot tell some of the labels apart, None where it may."""
    same = cut_off(labels, templates)
    return (
        f"holds {', '.join(repr(label) for label in same[:2])}, which differ only after the part "
        "of a prompt that CLIP reads"
        f" ({CONTEXT_TOKENS} tokens); shorten them, or the templates"
        if same
        else None
    )


Template = Annotated[str, Field(min_length=2, max_length=200), AfterValidator(_one_slot)]
"""A prompt template with one `{}`."""


class _Target(Schema):
    templates: tuple[Template, ...] = Field(
        DEFAULT_TEMPLATES,
        min_length=1,
        max_length=100,
        description="prompts of the classifier; their text embeddings are averaged",
    )

    def names(self) -> tuple[str, ...]:
        """Return the class names that the request is about, spelled as its labels are."""
        raise NotImplementedError

    def synonyms_of(self, name: str) -> tuple[str, ...]:
        """Return the other names of one of these classes."""
        raise NotImplementedError

    def all_names(self) -> tuple[str, ...]:
        """Return every class name that the request is about, each followed by its synonyms; none
        twice.
        """
        return tuple(
            Spellings(name for own in self.names() for name in (own, *self.synonyms_of(own)))
        )


class ClassTarget(_Target):
    """Forget one class, or several in one job."""

    type: Literal["class"]
    class_: Label | Names = Field(alias="class", description="one name, or a list of names")
    synonyms: Names | dict[Label, Names] = Field(
        (), description="other names of the class; with several classes, a list under each name"
    )
    labels: Names = Field(min_length=2, description="every class the model is used with")

    def names(self) -> tuple[str, ...]:
        """Return the class names that the request is about, spelled as its labels are."""
        return self._names

    @cached_property
    def _names(self) -> tuple[str, ...]:
        known = Spellings(self.labels)
        return tuple(known.get(name) or name for name in self._classes())

    def synonyms_of(self, name: str) -> tuple[str, ...]:
        """Return the other names of one of the forgotten classes."""
        if not isinstance(self.synonyms, dict):
            return self.synonyms
        key = name_key(name)
        return next((names for own, names in self.synonyms.items() if name_key(own) == key), ())

    def retained(self) -> tuple[str, ...]:
        """Return the labels that must keep working, in the order of the request."""
        gone = set(self.names())
        return tuple(label for label in self.labels if label not in gone)

    def _classes(self) -> tuple[str, ...]:
        return (self.class_,) if isinstance(self.class_, str) else self.class_

    @field_validator("labels")
    @classmethod
    def _labels_unique(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        return _unique(labels)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        errors = [*self._class_errors(), *self._synonym_errors()]
        if detail := _cut_off(self.labels, self.templates):
            errors.append(("labels", detail))
        if errors:
            raise wrong_fields("ClassTarget", [((field,), detail) for field, detail in errors])
        return self

    def _class_errors(self) -> Iterator[tuple[str, str]]:
        classes, known = self._classes(), Spellings(self.labels)
        if not classes:
            yield "class", "must name at least one class"
        if twice := given_twice(classes):
            yield (
                "class",
                f"names {', '.join(map(repr, twice))} more than once; name each class once",
            )
        missing = [name for name in classes if name not in known]
        if missing:
            yield "class", f"{_no_label(missing[0], self.labels)}; add it, or correct its spelling"
        elif not self.retained():
            yield (
                "labels",
                "holds nothing but what is to be forgotten; add the classes that must stay",
            )

    def _synonym_errors(self) -> Iterator[tuple[str, str]]:
        names, known = self.names(), Spellings(self.labels)
        if isinstance(self.synonyms, dict):
            if twice := given_twice(self.synonyms):
                yield (
                    "synonyms",
                    (
                        f"names {', '.join(map(repr, twice))}, which are one name for CLIP; leave "
                        "one "
                        "of them"
                    ),
                )
            others = [name for name in self.synonyms if name not in Spellings(names)]
            if others:
                yield (
                    "synonyms",
                    (
                        f"names {min(others)!r}, which is not to be forgotten; list names of the "
                        "class "
                        "alone"
                    ),
                )
        elif len(names) > 1 and self.synonyms:
            yield (
                "synonyms",
                "must be a list under each class name when several classes are forgotten",
            )
        clash = [
            synonym for name in names for synonym in self.synonyms_of(name) if synonym in known
        ]
        if clash:
            yield (
                "synonyms",
                f"holds {min(clash)!r}, which is also one of the labels; the two must stay apart",
            )


class SubgroupTarget(_Target):
    """Forget the part of a class that the images in `data.forget` show, and keep the rest of the
    class.
    """

    type: Literal["subgroup"]
    class_: Label = Field(alias="class")
    subgroup: Label = Field(description="its name, as it goes into the report")
    synonyms: Names = Field((), description="other names of the class")
    labels: Names = Field(
        (),
        description="every class the model is used with; by default the classes found in the data",
    )

    def names(self) -> tuple[str, ...]:
        """Return the class whose part is to be forgotten, as a tuple of one, spelled as the
        labels are.
        """
        return self._names

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return (Spellings(self.labels).get(self.class_) or self.class_,)

    def synonyms_of(self, name: str) -> tuple[str, ...]:  # noqa: ARG002 - there is one class
        """Return the other names of the class."""
        return self.synonyms

    @field_validator("labels")
    @classmethod
    def _labels_unique(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        return _unique(labels)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        errors: list[tuple[tuple[str | int, ...], str]] = []
        known = Spellings(self.labels)
        if self.labels and self.class_ not in known:
            detail = f"{_no_label(self.class_, self.labels)}; add it, or correct its spelling"
            errors.append((("class",), detail))
        clash = [
            synonym
            for synonym in self.synonyms
            if synonym in known and name_key(synonym) != name_key(self.class_)
        ]
        if clash:
            detail = (
                f"holds {min(clash)!r}, which is also one of the labels; the two must stay apart"
            )
            errors.append((("synonyms",), detail))
        if unread := _cut_off(self.labels, self.templates):
            errors.append((("labels",), unread))
        if errors:
            raise wrong_fields("SubgroupTarget", errors)
        return self


def _no_label(name: str, labels: tuple[str, ...]) -> str:
    near = like(name, labels) or next(
        iter(get_close_matches(spoken(name), labels, n=1, cutoff=0.75)), None
    )
    return f"{name!r} is not among the labels" + (
        f", of which {near!r} is the nearest" if near else ""
    )


Target = Annotated[ClassTarget | SubgroupTarget, Field(discriminator="type")]


MethodName = Literal[
    "synthetic",
    "three_stage",
    "null_space",
    "delete",
    "slug",
    "clip_erase",
    "pbu",
    "gradient_ascent",
    "auto",
]


class Method(Schema):
    """How to forget. Each method's parameters are described under its name in the documentation."""

    name: MethodName
    parameters: dict[str, Any] = Field(default_factory=dict)

    def parsed(self) -> MethodParameters:
        """Return the parameters as the method's own schema."""
        return METHOD_PARAMETERS[self.name].model_validate(self.parameters)

    @field_validator("parameters")
    @classmethod
    def _parameters_fit(cls, parameters: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if "name" in info.data:  # otherwise the name is already an error of its own
            METHOD_PARAMETERS[info.data["name"]].model_validate(parameters)
        return parameters


class EvaluationData(Schema):
    """A named data set on which the model is measured before and after."""

    name: Label
    dataset: Reference = Field(examples=["ds_01k3z8w9d0v6m2n4p8q1r5s7t9"])


class EarlierErasure(EvaluationData):
    """A named data set of what an earlier erasure made the model, or one that it came from,
    forget: it must stay forgotten.
    """

    labels: Names = Field(
        (),
        description="the labels that it is measured with, where they are not those of the target",
    )

    @field_validator("labels")
    @classmethod
    def _labels_unique(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        return _unique(labels)


class Data(Schema):
    """The images that a request gives. Every value is a data set's id, or a path where the
    server allows paths.
    """

    forget: Reference | None = Field(
        None, description="images of what is to be forgotten, for the method"
    )
    retain: Reference | None = Field(
        None, description="images of what is close and must stay, for the method"
    )
    calibration: Reference | None = Field(
        None,
        description="images that choose the mixing weight; split from forget and retain otherwise",
    )
    proxy: Reference | None = Field(
        None, description="unlabelled images of anything; distilled from the original model"
    )
    forget_test: Reference | None = Field(
        None, description="images of what is to be forgotten, for the audit alone"
    )
    retain_test: Reference | None = Field(
        None, description="images of what must stay, for the audit alone"
    )
    evaluation: tuple[EvaluationData, ...] = Field((), max_length=50)
    earlier: tuple[EarlierErasure, ...] = Field(
        (),
        max_length=50,
        description="images of earlier erasures: measured again, and held down by three_stage",
    )

    @model_validator(mode="after")
    def _names_unique(self) -> Self:
        errors: list[tuple[tuple[str | int, ...], str]] = []
        taken, reserved = set[str](), Spellings(RESERVED)
        for role, number, entry in self.named():
            if entry.name in reserved:
                detail = f"{entry.name!r} names a place of the report; choose another"
                errors.append(((role, number, "name"), detail))
            elif name_key(entry.name) in taken:
                detail = (
                    f"{entry.name!r} is also the name of a set before it; call each set by a "
                    "name of its own"
                )
                errors.append(((role, number, "name"), detail))
            taken.add(name_key(entry.name))
        if errors:
            raise wrong_fields("Data", errors)
        return self

    def named(self) -> Iterator[tuple[str, int, EvaluationData]]:
        """Yield every named set with its role and its place in the list."""
        for role in ("evaluation", "earlier"):
            yield from ((role, number, entry) for number, entry in enumerate(getattr(self, role)))


class Thresholds(Schema):
    """What the result must meet to be published.

    A field left out gets its default where it can be measured, and met with so many images; null
    switches it off."""

    max_forget_accuracy: Fraction | None = Field(
        None, description="accuracy on real images of what is forgotten, after"
    )
    max_forget_upper_end: Fraction | None = Field(
        None,
        description=(
            "upper end of the 95 % interval of that accuracy, in the set where it is highest"
        ),
    )
    max_retain_drop: Fraction | None = Field(
        None, description="accuracy lost on the rest of the target's own set"
    )
    max_transfer_drop: Fraction | None = Field(
        None, description="accuracy lost on every other evaluation set, the worst of them"
    )
    max_synthetic_accuracy: Fraction | None = Field(
        None, description="accuracy on held-out synthetic samples, after: needs no image"
    )
    max_earlier_accuracy: Fraction | None = Field(
        None, description="accuracy on what earlier erasures took away, after, the worst of them"
    )
    measures: tuple[MeasureThreshold, ...] = Field(
        (), max_length=100, description="bounds on measures of the audit"
    )

    def count(self) -> int:
        """Return how many bounds the gate judges; `max` and `min` of a measure are two."""
        values = [getattr(self, name) for name in type(self).model_fields if name != "measures"]
        return sum(
            bound is not None
            for bound in values + [b for m in self.measures for b in (m.max, m.min)]
        )


class ErasureRequest(Schema):
    """The body of `POST /jobs`, and the file that `efface run` and `efface submit` read."""

    model: ModelReference
    target: Target
    method: Method
    data: Data = Field(default_factory=lambda: Data())
    thresholds: Thresholds = Field(default_factory=lambda: Thresholds())
    audit: Audit = Field(default_factory=lambda: Audit())
    seed: int = Field(0, strict=True, ge=0, lt=2**32)
    external_id: Identifier | None = Field(
        None, description="your own reference, e.g. of the data subject request"
    )
    received_at: Moment | None = Field(None, description="when the data subject asked (RFC 3339)")
    metadata: dict[
        Annotated[str, Field(min_length=1, max_length=64)], Annotated[str, Field(max_length=512)]
    ] = Field(default_factory=dict, max_length=16)

    @model_validator(mode="after")
    def _audit_and_target_fit(self) -> Self:
        names, tried = Spellings(self.target.names()), self.audit.names
        errors: list[tuple[tuple[str | int, ...], str]] = []
        if len(names) > 1 and tried and not isinstance(tried, dict):
            errors.append(
                (
                    ("audit", "names"),
                    "must be a list under each class name when several classes are forgotten",
                )
            )
        others = [name for name in tried if name not in names] if isinstance(tried, dict) else []
        if others:
            errors.append(
                (
                    ("audit", "names"),
                    f"names {min(others)!r}, which is not to be forgotten; leave it out",
                )
            )
        for number, entry in enumerate(self.data.earlier):
            if detail := _cut_off(entry.labels, self.target.templates):
                errors.append((("data", "earlier", number, "labels"), detail))
        if errors:
            raise wrong_fields("ErasureRequest", errors)
        return self
