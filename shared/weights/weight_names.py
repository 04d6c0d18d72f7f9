"""Whether the tensors of a file are those of a config, from their names and shapes alone: the
prefixes that training puts before names are found by what fits, and what does not fit is said in
one sentence."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from shared.errors import InvalidRequest
from shared.files.errors import invalid, shown
from shared.weights.architectures import known_names
from shared.weights.clip_shapes import Expected
from shared.weights.tensor_files import COUNTERS, Shape, TensorInfo
from shared.weights.tensor_rules import Rule

Infos = Mapping[str, TensorInfo]
Others = Callable[[str], Expected | None]

MAX_SENTENCE = 300
MAX_NAME = 100
MAX_PREFIX_PARTS = 8
WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Parts of names that torch.compile, FSDP and activation checkpointing put in wherever a module
was wrapped.
"""
OPENAI_BUFFERS = frozenset({"input_resolution", "context_length", "vocab_size"})
"""What OpenAI's own files hold besides the weights."""
TRANSFORMERS = ("text_model.", "vision_model.")
_LAYER = re.compile(r"transformer\.resblocks\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class Fit:
    """Tensors that are those of a config."""

    rules: dict[str, Rule]
    prefix: str
    """What was taken off the names, with its dot."""
    left_out: tuple[str, ...]
    """Weights beside the model, below another prefix."""
    openai: bool
    """The file is OpenAI's, whose models have QuickGELU."""


def fitted(infos: Infos, expected: Expected, described: str, others: Others | None = None) -> Fit:
    """Return how the tensors of a file become those that a config describes.

    Args:
        infos: the header of the file, or the tensors found in it.
        expected: what the config describes.
        described: what to call the config in a sentence: a file's name, or an architecture's.
        others: gives what another architecture describes, by its name, so that the right one can be
            named.

    Raises:
        InvalidRequest: they do not fit; the detail is one sentence of at most 300 characters.
    """
    names = _plain_names(infos)
    prefix = _prefix(names, expected)
    inside = {
        name[len(prefix) :]: source for name, source in names.items() if name.startswith(prefix)
    }
    openai = any(name in OPENAI_BUFFERS for name in inside)
    found: dict[str, str] = {}
    unexpected = []
    for name, source in inside.items():
        if (target := _target(name, expected)) is not None:
            found[target] = source
        elif name.rpartition(".")[2] not in COUNTERS:
            unexpected.append(name)
    missing = [
        name for name in expected.shapes if name not in found and name not in expected.optional
    ]
    wrong = [
        n
        for n, s in found.items()
        if n in expected.shapes and not _alike(infos[s].shape, expected.shapes[n])
    ]
    if missing or unexpected or wrong:
        misfit = _Misfit(names, infos, found, expected, described, missing, unexpected, wrong)
        raise invalid(misfit.sentence(_fitting(infos, others)))
    rules = {
        target: _rule(infos[source].shape, source, expected.shapes.get(target))
        for target, source in found.items()
    }
    counters = {
        n: Rule() for n in expected.shapes if n not in found and n.endswith("num_batches_tracked")
    }
    outside = (
        n for n in names if not n.startswith(prefix) and n.rpartition(".")[2] not in COUNTERS
    )
    return Fit(rules | counters, prefix, tuple(sorted(outside)), openai)


def fits(infos: Infos, expected: Expected) -> bool:
    """True if the tensors are those of a config."""
    try:
        fitted(infos, expected, "")
    except InvalidRequest:
        return False
    return True


def listed(names: Collection[str], room: int) -> str:
    """Return names for a sentence, each one whole, as many as have room, and how many more there
    are; at least one.
    """
    told: list[str] = []
    for name in names:
        told.append(shown(name)[1:-1] if len(name) <= MAX_NAME else shown(name))
        if len(", ".join(told)) > room and len(told) > 1:
            told.pop()
            break
    rest = len(names) - len(told)
    return ", ".join(told) + (f" and {rest} more" if rest else "")


def _plain_names(infos: Infos) -> dict[str, str]:
    """Return the names without what wrappers put into them, each with the name in the file."""
    names: dict[str, str] = {}
    for source in infos:
        name = ".".join(part for part in source.split(".") if part not in WRAPPERS)
        if name in names:
            raise invalid(
                f"the weights hold {shown(name)} twice, once as {shown(source)}; keep one of them"
            )
        names[name] = source
    return names


def _prefix(names: Iterable[str], expected: Expected) -> str:
    """Return what stands before the names of the model: the prefix with which most names are
    known.
    """
    hits: Counter[str] = Counter()
    for name in names:
        parts = name.split(".")
        for cut in range(min(len(parts), MAX_PREFIX_PARTS)):
            if _target(".".join(parts[cut:]), expected) is not None:
                hits[".".join([*parts[:cut], ""])] += 1
    if not hits:
        return ""
    most = max(hits.values())
    best = sorted((prefix for prefix, count in hits.items() if count == most), key=len)
    if len(best) > 1 and most > 1:
        raise invalid(
            f"the weights hold several models, below {listed([repr(p) for p in best], 150)}; "
            "keep "
            "the tensors of one of them"
        )
    return best[0]


def _target(name: str, expected: Expected) -> str | None:
    """Return the name in the model of a tensor in a file, None where the model has none:
    open_clip knows two places for texts.
    """
    if expected.known(name):
        return name
    if f"text.{name}" in expected.shapes:
        return f"text.{name}"
    inner = name.removeprefix("text.")
    if inner != name and inner in expected.shapes and not inner.startswith(("visual.", "logit_")):
        return inner
    if ".module." in name:  # DataParallel around a part of the model
        return _target(name.replace(".module.", "."), expected)
    return None


def _alike(found: Shape, wanted: Shape) -> bool:
    return found == wanted or {found, wanted} == {(), (1,)}


def _rule(found: Shape, source: str, wanted: Shape | None) -> Rule:
    return Rule((source,), shape=None if wanted is None or wanted == found else wanted)


def _fitting(infos: Infos, others: Others | None) -> list[str]:
    """Return architectures that the tensors fit."""
    if others is None:
        return []
    known = ((name, others(name)) for name in known_names())
    return [
        n
        for n, e in known
        if e is not None and not e.open and _may_fit(infos, e) and fits(infos, e)
    ]


def _may_fit(infos: Infos, expected: Expected) -> bool:
    """Look at the few tensors that tell most architectures apart; looking at all takes a hundred
    times as long.
    """
    return all(
        any(
            source.endswith(name) and _alike(info.shape, expected.shapes[name])
            for source, info in infos.items()
        )
        for name in expected.fields
        if name in expected.shapes
    )


@dataclass(frozen=True, slots=True)
class _Misfit:
    """What does not fit, to be said."""

    names: Mapping[str, str]
    infos: Infos
    found: Mapping[str, str]
    expected: Expected
    described: str
    missing: list[str]
    unexpected: list[str]
    wrong: list[str]

    def sentence(self, fitting: list[str]) -> str:
        if fitting:
            return (
                f"the weights are not those of {self.described}, but fit "
                f"{listed(fitting, 150)}; give that architecture"
            )
        said = next(self._causes())
        return (
            said
            if len(said) <= MAX_SENTENCE
            else said[: said.rindex(" ", 0, MAX_SENTENCE)].rstrip(",;")
        )

    def _causes(self) -> Iterator[str]:
        """Yield what may be said, the best first."""
        if all(any(part in name for name in self.names) for part in TRANSFORMERS):
            yield (
                "the weights have the tensor names of transformers (text_model., vision_model.), "
                "not those of open_clip;"
                " send the folder with its config.json, and it is converted"
            )
        if not self.found:
            yield (
                f"the weights hold no tensor that {self.described} has, such as "
                f"{next(iter(self.expected.shapes))}:"
                f" they are {listed(list(self.names), 100)}; give the weights of a CLIP"
            )
        yield from self._towers()
        yield from self._layers("image", "visual.", "vision_cfg.layers")
        yield from self._layers("text", "", "text_cfg.layers")
        if self.unexpected == ["logit_bias"]:
            yield (
                f"the weights hold logit_bias, as SigLIP's do, but {self.described} has no "
                "init_logit_bias;"
                ' add "init_logit_bias": -10 to model_cfg'
            )
        yield from self._shapes()
        yield self._other_names()

    def _towers(self) -> Iterator[str]:
        marks = {
            "visual.layer1.": "a ResNet",
            "visual.transformer.": "a ViT",
            "visual.trunk.": "a timm tower",
        }
        has = next(
            (kind for mark, kind in marks.items() if any(mark in name for name in self.names)), None
        )
        wants = next(
            (
                kind
                for mark, kind in marks.items()
                if any(mark in name for name in self.expected.shapes)
            ),
            None,
        )
        wants = wants or ("a timm tower" if "visual." in self.expected.open else None)
        if has and wants and has != wants:
            yield (
                f"the image tower of the weights is {has}, but {self.described} describes {wants};"
                " give the config of these weights"
            )

    def _layers(self, tower: str, start: str, field: str) -> Iterator[str]:
        def count(names: Iterable[str]) -> int:
            own = (n for n in names if ("visual." in n) == (start == "visual."))
            return len({match[1] for n in own if (match := _LAYER.search(n))})

        has, wants = count(self.names), count(self.expected.shapes)
        if has and wants and has != wants:
            yield (
                f"{self.described} says {wants} {tower} layers ({field}), the weights have {has};"
                " give the config that was made with these weights"
            )

    def _shapes(self) -> Iterator[str]:
        if not self.wrong:
            return
        told = [name for name in self.expected.fields if name in self.wrong] or self.wrong
        name = told[0]
        has, wants = list(self.infos[self.found[name]].shape), list(self.expected.shapes[name])
        hint = f" ({self.expected.fields[name]})" if name in self.expected.fields else ""
        more = (
            f", and {len(self.wrong) - 1} more tensors have other shapes"
            if len(self.wrong) > 1
            else ""
        )
        yield (
            f"{listed([name], 100)} has the shape {has} in the weights and {wants} after "
            f"{self.described}{hint}{more};"
            " give the config that was made with these weights"
        )

    def _other_names(self) -> str:
        parts = []
        room = 70 if self.missing and self.unexpected else 150
        if self.missing:
            parts.append(f"lack {len(self.missing)} of its tensors ({listed(self.missing, room)})")
        if self.unexpected:
            parts.append(
                f"hold {len(self.unexpected)} that it does not know "
                f"({listed(self.unexpected, room)})"
            )
        return (
            f"the weights do not fit {self.described}: they {' and '.join(parts)}; give the "
            "whole model and its own config"
        )
