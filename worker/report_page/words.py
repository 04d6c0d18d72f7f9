"""What the page says in words. Short sentences for people who do not train models."""

from shared.schemas.measure_catalogue import CATALOGUE, SAMPLES
from shared.schemas.measures import Curve, Measure
from shared.schemas.methods import METHOD_IMAGES
from shared.schemas.report import EvaluationResult, Report, TargetResult, ThresholdResult
from worker.report_page.figures import hits, percent

EVIDENCE = {
    None: (
        "Not determined",
        (
            "This report does not say what kind of knowledge was changed. See what was not "
            "measured, "
            "further down."
        ),
    ),
    "none": (
        "No removal shown",
        "The measurements do not show that the model lost what it knew.",
    ),
    "association": (
        "The link between name and image",
        "The model no longer connects the name with the images. Its image encoder can still tell "
        "these images apart:"
        " whoever puts another text encoder beside it, or trains it further, may bring "
        "recognition back.",
    ),
    "image_encoder": (
        "The image encoder",
        "The measurements show a change in what the image encoder itself can tell apart.",
    ),
    "both": (
        "The link between name and image, and the image encoder",
        "The model no longer connects the name with the images, and the change is in the image "
        "encoder, too: the original"
        " text encoder does not bring recognition back, and every classifier that was tried on "
        "the encoder's output finds"
        " these images less often than before.",
    ),
}

STILL_FOUND = {
    "forget_recall": "asked for by its name",
    "worst_prompt_recall": "under the worst other wording",
    "original_text_recall": "with the original text encoder put back",
    "original_image_recall": (
        "with the original image encoder put back, as in an index of images that was filled before"
    ),
    "probe_recall": "by a classifier trained on the image features",
    "penultimate_probe_recall": "by a classifier trained on the features before the last step",
    "prototype_recall": "from five examples",
    "benign_recall": "after further training on other images",
    **{
        f"relearn_recall_{count}": f"after training on {count} of its images"
        for count in (1, 5, 16, 64)
    },
}
"""Ways in which what is forgotten may still be found; shares of its images."""
WORST = 3

METHODS = {
    "synthetic": (
        "The method worked from the name of the class. It used pictures that it computed itself, "
        "and no image of the"
        " class. It changed the weights that lead from this name to images and from such images "
        "to the name."
    ),
    "three_stage": (
        "The method worked from images that the request gave. First it lowered the recognition of "
        "what is to be"
        " forgotten. Then it repaired what is to stay. At last it mixed the edited weights with "
        "the original ones as"
        " far as the first goal allows."
    ),
    "null_space": (
        "The method worked from the name of the class alone. It removed from the last step of an "
        "encoder the direction"
        " that the name stands for, in one calculation. The weights before that step are as they "
        "were."
    ),
    "delete": (
        "The method worked from images of what is to be forgotten. It trained the last part of "
        "the image encoder until"
        " these images get the answers that the original would give if their name were not there "
        "to choose."
    ),
    "pbu": (
        "The method worked from images of what is to be forgotten. It trained the last part of "
        "the image encoder to give"
        " them other names, and held back every weight that counts for telling the other names "
        "apart."
    ),
    "slug": (
        "The method worked from images that the request gave. It changed the weights of one "
        "layer, in one step: it tried"
        " several layers and lengths, and took what forgot enough at the least cost on images set "
        "aside for this."
    ),
    "clip_erase": (
        "The method worked from images that the request gave. It trained both encoders: images of "
        "what is to be forgotten"
        " and their texts were drawn apart, while other images and texts were held together."
    ),
    "gradient_ascent": (
        "The method worked from images of what is to be forgotten. It trained the last part of "
        "the image encoder to get"
        " them wrong, and protected nothing else. It is here as the control that other methods "
        "must beat."
    ),
    "auto": (
        "Several methods were tried one after the other, until one met the thresholds. All that "
        "were tried are listed for"
        " engineers at the end."
    ),
}

THRESHOLDS = {
    "max_forget_accuracy": "Images of what is forgotten that are still recognised",
    "max_forget_upper_end": "The same, at the upper end of its 95 % interval",
    "max_retain_drop": "Loss on the rest of the target’s own set",
    "max_transfer_drop": "Loss on other sets, the worst of them",
    "max_synthetic_accuracy": "Synthetic samples that are still recognised",
    "max_earlier_accuracy": "Recognised of what earlier erasures took away, the worst of them",
}

CURVES = {
    "held_out_accuracy": "Held-out samples still recognised",
    "image_tower_alone": "The same, with the original text encoder",
    "text_tower_alone": "The same, with the original image encoder",
    "forget_accuracy": "Images to be forgotten, still recognised",
    "recall": "Images to be forgotten, set aside to steer by: still recognised",
    "kept": "Other images set aside, still recognised (1 is as before)",
    "recognised": "Samples still recognised",
    "accuracy": "Samples still recognised",
}
"""What the metrics of methods are called; any other is called as the method calls it."""

GROUPS = {
    "forgetting": (
        "Other ways to ask",
        (
            "The same images, asked for in other words and other languages. What counts is the "
            "worst "
            "wording."
        ),
    ),
    "retention": (
        "What is to stay",
        "Classes close to what was forgotten, and classes far from it.",
    ),
    "transfer": ("Other sets", "Images that have nothing to do with the request."),
    "representation": (
        "What the image features still hold",
        (
            "Someone with labelled images can train a small classifier on the model's features. "
            "This "
            "is how well that works."
        ),
    ),
    "towers": (
        "One encoder at a time",
        "A CLIP has an image encoder and a text encoder. Here one of them is the original again.",
    ),
    "relearning": (
        "How easily it comes back",
        (
            "The edited model is trained on a few images. The sooner recognition returns, the "
            "shallower the forgetting."
        ),
    ),
    "membership": (
        "Traces of single images",
        (
            "An attacker tries to tell images that the model was trained on from images that it "
            "never "
            "saw."
        ),
    ),
    "reference": (
        "Beside a model that never saw the data",
        (
            "The best result possible is not zero: it is what a model does that was trained "
            "without "
            "the data."
        ),
    ),
    "weights": ("What changed in the weights", "How much of the model the edit touched."),
}

ATTACKS = ("forgetting", "representation", "towers", "relearning", "membership", "reference")
"""Groups that ask whether the knowledge is still there; the page says which of them are missing."""

ROLES = {"forget": "is to be forgotten", "sibling": "same class, stays", "retain": "stays"}

BETTER = {
    "lower": "lower is better",
    "higher": "higher is better",
    "neither": "neither direction is better",
}

STAGES = {
    "preparing": "load and measure the original",
    "synthesizing": "compute samples",
    "forgetting": "lower recognition",
    "reminding": "repair what stays",
    "restoring": "mix with the original",
    "auditing": "measure the edited model",
    "publishing": "write the results",
}

GLOSSARY = (
    (
        "Accuracy",
        (
            "The share of images to which the model gives their right name, among all names of the "
            "set."
        ),
    ),
    (
        "Class, subgroup",
        (
            "A class is all images that share a name. A subgroup is a part of a class, such as its "
            "sketches."
        ),
    ),
    (
        "CLIP, image encoder, text encoder",
        (
            "A CLIP turns images and texts into lists of numbers and compares them. Each encoder "
            "is "
            "also called a tower."
        ),
    ),
    (
        "Digest (SHA-256)",
        "A fingerprint of a file. Two files with the same digest have the same content.",
    ),
    (
        "Evaluation set",
        "Images with known names on which the model is measured. The edit used none of these "
        "files; where copies in another"
        " format were found, the limits say so.",
    ),
    (
        "Evidence level",
        "What the measurements, and not the name of the method, show to have changed: the link "
        "between name and image,"
        " the image encoder, or both.",
    ),
    (
        "Interval (95 %)",
        "The range in which the true share lies, with 95 % confidence, given how many images were "
        "measured. With few"
        " images it is wide.",
    ),
    (
        "Linear probe",
        "A simple classifier that is trained on a model's features, to see what these still tell.",
    ),
    (
        "Membership inference",
        "An attack that tries to tell whether a given image was used for training.",
    ),
    ("n", "The number of images behind a number."),
    ("Points", "Percentage points: from 99.0 % to 98.5 % is a loss of 0.5 points."),
    (
        "Prompt, template",
        "The sentence in which the model is asked for a class, such as: a photo of a {}.",
    ),
    (
        "Recognised",
        (
            "The model ranked the right name first. Also called recall, where only one class is "
            "looked at."
        ),
    ),
    (
        "Reference model",
        "A model that was trained the same way, but never saw what is to be forgotten.",
    ),
    (
        "Relearning",
        "Training the edited model on a few images, to see how soon it recognises them again.",
    ),
    (
        "Synthetic samples",
        "Pictures that were computed from the model itself. They are images of nothing and nobody.",
    ),
    ("Threshold", "A limit that the request set. A result that misses one is not published."),
    ("Transfer", "How the model does on sets that have nothing to do with the request."),
    ("Zero-shot", "The model is asked for names in words. No classifier is trained for them."),
)


def target_name(report: Report) -> str:
    """Return what the request is about, in quotation marks."""
    target = report.request.target
    names = ", ".join(f"\u201c{name}\u201d" for name in target.names())
    return names if target.type == "class" else f"{names} as \u201c{target.subgroup}\u201d"


def verdict(report: Report) -> str:
    """Return the verdict in one line."""
    total, missed = len(report.thresholds), sum(not t.passed for t in report.thresholds)
    if missed:
        of = "its only threshold" if total == 1 else f"{missed} of {total} thresholds"
        return (
            f"Failed: the edited model misses {of}. Its weights are in quarantine and are not "
            "given out."
        )
    if report.verdict == "failed":
        return "Failed. The weights are in quarantine and are not given out."
    if not total:
        return "Passed: the request sets no threshold, so none could be missed."
    return (
        "Passed: the edited model meets "
        f"{'the one threshold' if total == 1 else f'all {total} thresholds'} of the request."
    )


def still_found(report: Report) -> list[Measure]:
    """Return every way in which what is forgotten was looked for, the one that finds most first;
    real images before samples.
    """
    taken = [m for m in report.measures if m.name in STILL_FOUND and m.counts and m.unit == "share"]
    real = [m for m in taken if m.where != SAMPLES]
    best: dict[str, Measure] = {}
    for measure in real or taken:
        if measure.name not in best or measure.unlearned.value > best[measure.name].unlearned.value:
            best[measure.name] = measure
    return sorted(best.values(), key=lambda m: -m.unlearned.value)


SHOWN_BY = {
    "original_text_recall": "With the original text encoder",
    "original_image_recall": "With the original image encoder",
    "probe_recall": "By a classifier on the image features",
}


def shown_by(report: Report) -> list[str]:
    """Return the numbers that the evidence level rests on, in words: by either encoder of the
    original, by a classifier.
    """
    found = {m.name: m for m in still_found(report)}
    return [f"{words}: {now(found[name])}" for name, words in SHOWN_BY.items() if name in found]


def now(measure: Measure) -> str:
    """Return what a measure still finds: `0 of 80` where it is nothing, a share otherwise."""
    value, n = measure.unlearned.value, measure.unlearned.n
    return f"0 of {n:,}" if value == 0 and n is not None else percent(value)


def count_or_share(measure: Measure) -> str:
    """Return what a measure still finds, and what it found in the original."""
    return (
        f"{now(measure)} (original {percent(measure.original.value)})"
        if measure.original
        else now(measure)
    )


def measure_title(name: str) -> str:
    """Return what a measure is called, whether it was taken or not."""
    return CATALOGUE[name].title if name in CATALOGUE else name.replace("_", " ")


def scored_with(result: EvaluationResult, report: Report) -> str:
    """Return among which labels the images of a set had to find theirs."""
    asked = report.request.target.labels
    if asked and set(result.labels) == set(asked):
        return f"among the {len(result.labels):,} labels of the request"
    if asked and result.role == "transfer":
        return (
            f"among the {len(result.labels):,} classes of the set itself, which are not those "
            "of the request"
        )
    return f"among {len(result.labels):,} labels"


def lineage(report: Report) -> str | None:
    """Return where the original came from, as far as it is known; None where it is no result of
    an erasure.
    """
    earlier = [entry.name for entry in report.request.data.earlier]
    known = (
        f"; the request names what was forgotten before: {', '.join(earlier)}" if earlier else ""
    )
    if report.model_before.made_by:
        return (
            "\u201cOriginal\u201d on this page is the result of an earlier erasure, job "
            f"{report.model_before.made_by}{known}."
            " What that one took away is not part of it any more."
        )
    return f"The model has forgotten before{known}." if known else None


def advice(report: Report) -> list[str]:
    """Return what can be done where thresholds were missed, in the order of what is easiest."""
    missed = {t.measure for t in report.thresholds if not t.passed}
    if not missed:
        return []
    method, words = report.request.method.name, []
    if any(t.where == "nothing was measured" for t in report.thresholds if not t.passed):
        words.append(
            "Give images for the threshold that nothing was measured for, or leave that "
            "threshold "
            "out."
        )
    if missed & {"max_retain_drop", "max_transfer_drop", "max_earlier_accuracy"} or any(
        "drop" in m for m in missed
    ):
        words.append(
            "Too much else was lost: give more images of what is to stay (data.retain, "
            "data.proxy), above all of the classes"
            " that lost most, or choose a method that changes less."
        )
    if missed - {"max_retain_drop", "max_transfer_drop", "max_earlier_accuracy"}:
        words.append(
            "Too much is still recognised: give the other names of the class as target.synonyms, "
            "more images of it"
            " (data.forget), or more steps in method.parameters."
        )
    if method != "auto":
        words.append(
            "Send the request again with the method auto: it tries several methods and keeps "
            "the "
            "first that passes."
        )
    words.append(
        "Where a limit was stricter than the purpose needs, or is judged by the upper end of an "
        "interval on few images, give"
        " more test images or another limit, and record why."
    )
    return words


def threshold_title(threshold: ThresholdResult, report: Report) -> str:
    """Return what a threshold limits."""
    titles = {measure.name: measure.title for measure in report.measures}
    known = THRESHOLDS | titles
    return known.get(threshold.measure) or threshold.measure.replace("_", " ").capitalize()


def threshold_unit(threshold: ThresholdResult, report: Report) -> str:
    """Return the unit in which a threshold and its value are written: that of its measure, a
    share for the accuracies.
    """
    return next(
        (measure.unit for measure in report.measures if measure.name == threshold.measure), "share"
    )


def given_to_the_method(report: Report) -> str:
    """Return what the method learnt from: of the images in the request those that it reads, for
    `auto` those that it may.
    """
    name, data = report.method.get("chosen", report.request.method.name), report.request.data
    given = {"forget": data.forget, "retain": data.retain}
    read = [
        role
        for role, images in given.items()
        if images and (name == "auto" or role in METHOD_IMAGES[name])
    ]
    shown = {"forget": "of what is to be forgotten", "retain": "of what is to stay"}
    return (
        f"images {', and '.join(shown[role] for role in read)}" if read else "names, and no image"
    )


def what_was_done(report: Report) -> str:
    """Return how the method worked; of `auto` also how the one worked that it chose."""
    names = [report.request.method.name, report.method.get("chosen")]
    return " ".join(METHODS[name] for name in names if name in METHODS)


def curve_title(curve: Curve) -> str:
    """Return what a curve shows, and of the edit's own curves in which stage."""
    known = CURVES.get(curve.name.rsplit(".", 1)[-1])
    stage = curve.name.split(".")[1] if curve.name.startswith("steps.") else ""
    if known is None or stage not in STAGES:
        return known or curve.title
    return f"Stage \u201c{stage}\u201d ({STAGES[stage]}): {known[0].lower()}{known[1:]}"


def set_title(name: str) -> str:
    """Return what an evaluation set is called; that of a subgroup request has no name of its
    own.
    """
    return "the target’s own images" if name == "target" else name


def summary(target: TargetResult, name: str) -> str:
    """Return in one sentence what became of the target."""
    if target.accuracy is not None:
        before, after = target.accuracy.before, target.accuracy.after
        return (
            f"Of {before.n:,} test images of {name}, the original model recognised {hits(before):,}"
            f" and the edited model {hits(after):,}."
        )
    if target.synthetic_accuracy is not None:
        before, after = target.synthetic_accuracy.before, target.synthetic_accuracy.after
        return (
            f"No real image of {name} was given. Of {before.n:,} synthetic samples, the original "
            "model recognised"
            f" {hits(before):,} and the edited model {hits(after):,}."
        )
    return f"Nothing was given on which {name} could be measured."
