"""Does another wording bring it back? The largest recall over wordings and templates that no method
is given.

For wording w of class c in template k: the share of c's images whose embedding is nearer to the
text of w in k than to the text in k of any other label, and of any distractor, a word that says
nothing. `worst_prompt_recall` is the largest of all; the others are the largest of their kind.
Wordings are synonyms (the request's, the audit's and those of
`shared/request_rules/words.json`), plurals, translations into four languages, three
misspellings. Of words under which the original itself recognises fewer than half in every
template there is nothing to forget: they are left out, unless none of their kind is known, and
never count as the worst of all; their row says so (`counts`). The request's own templates, by
which the other numbers are scored, are tried as well, so that nothing recognised there is above
the worst of all. The interval is that of the worst prompt's own recall; that it was picked from
many makes the true value, if anything, smaller."""

from typing import NamedTuple

from torch import Tensor

from shared.schemas.measure_catalogue import Need
from shared.schemas.measures import Value
from worker.evaluation.findings import Findings, found, missing
from worker.evaluation.intervals import share
from worker.evaluation.subject import Subject
from worker.evaluation.views import Case, View
from worker.evaluation.wordings import DISTRACTORS, Kind, Wording, templates_for, wordings

NAMES: dict[str, Kind | None] = {
    "worst_prompt_recall": None,
    "template_recall": "template",
    "synonym_recall": "synonym",
    "plural_recall": "plural",
    "translation_recall": "translation",
    "misspelling_recall": "misspelling",
}
LACKING = {"synonym_recall": Need.SYNONYMS, "translation_recall": Need.TRANSLATIONS}


KNOWN = 0.5


class Trial(NamedTuple):
    """The wordings of one label on its images in one place."""

    wordings: list[Wording]
    seen: Tensor
    """Bool [N]: the images."""
    unknown: frozenset[Wording] = frozenset()
    """Wordings that mean nothing to the original."""


class Worst(NamedTuple):
    """The prompt of a kind under which most is recognised."""

    value: Value
    prompt: str
    counts: bool = True
    """False where the original does not know the wording."""

    def above(self, other: "Worst | None") -> bool:
        """Return whether this one stands for both: what counts before what does not, then the
        larger.
        """
        return other is None or (self.counts, self.value.value) > (other.counts, other.value.value)


def measure(case: Case) -> Findings:
    """Yield the worst prompt of all and of each kind, for every place that shows what is
    forgotten.
    """
    places, tried = list(case.targets()), wordings(case.request, case.labels)
    if not places:
        yield from missing(Need.TARGET, *NAMES)
        return
    kinds = {wording.kind for wording in tried}
    for name, need in LACKING.items():
        if NAMES[name] not in kinds:
            yield from missing(need, name)
    for view in places:
        trials = _known(case.original, view, _trials(view, tried))
        worst = [_worst_of_kinds(subject, view, trials) for subject in case.subjects(view.name)]
        for name, kind in NAMES.items():
            if kind in worst[0]:
                old, new, *aim = (of_kinds[kind] for of_kinds in worst)
                aimed = aim[0].value if aim else None
                yield found(
                    name, view.name, new.value, old.value, aimed, new.prompt, counts=new.counts
                )


def _trials(view: View, tried: list[Wording]) -> list[Trial]:
    trials = []
    for label in dict.fromkeys(wording.label for wording in tried if wording.label in view.labels):
        seen = view.forget & (view.truth == view.labels.index(label))
        if bool(seen.any()):
            trials.append(Trial([wording for wording in tried if wording.label == label], seen))
    return trials


def _known(original: Subject, view: View, trials: list[Trial]) -> list[Trial]:
    """Leave out the wordings that mean nothing to the original, but keep a kind whole of which
    it knows none.
    """
    kept = []
    for trial in trials:
        best = _hits(original, view, trial).float().mean(dim=0).amax(dim=1)
        unknown = frozenset(
            w for w, recall in zip(trial.wordings, best.tolist(), strict=True) if recall < KNOWN
        )
        kinds = {wording.kind for wording in trial.wordings if wording not in unknown}
        left = [w for w in trial.wordings if w not in unknown or w.kind not in kinds]
        kept.append(Trial(left, trial.seen, unknown))
    return kept


def _worst_of_kinds(subject: Subject, view: View, trials: list[Trial]) -> dict[Kind | None, Worst]:
    """Return the worst prompt of each kind, and of all under None."""
    templates, worst = templates_for(view.labels), dict[Kind | None, Worst]()
    worst[None] = Worst(share(view.hits(subject)[view.forget]), "the request's own templates")
    for trial in trials:
        hits = _hits(subject, view, trial)
        recall = hits.float().mean(dim=0)
        for w, wording in enumerate(trial.wordings):
            k = int(recall[w].argmax())
            counts = wording not in trial.unknown or wording.kind == "template"
            candidate = Worst(share(hits[:, w, k]), templates[k].format(wording.words), counts)
            for kind in (None, wording.kind) if counts else (wording.kind,):
                if candidate.above(worst.get(kind)):
                    worst[kind] = candidate
    return worst


def _hits(subject: Subject, view: View, trial: Trial) -> Tensor:
    """Return which of the images are nearest to each wording in each template, bool [n, W, K]."""
    templates, label = templates_for(view.labels), trial.wordings[0].label
    images = subject.embeddings(view.name)[trial.seen]
    rivals = subject.texts(
        [*(other for other in view.labels if other != label), *DISTRACTORS], templates
    )
    best = (images @ rivals.flatten(0, 1).T).view(len(images), *rivals.shape[:2]).amax(dim=1)
    texts = subject.texts([wording.words for wording in trial.wordings], templates)
    return (images @ texts.flatten(0, 1).T).view(len(images), *texts.shape[:2]) > best[:, None, :]
