"""Which tower forgot? Recall with one tower of the original put back: anyone who has the public
weights can do that.

`original_text_recall`: image tower unlearned, text tower original; an edit of the text tower
alone does not survive it. `original_image_recall`: image tower original, text tower unlearned. A
reference has neither: it was trained apart from the original, so their towers do not fit
whatever it knows."""

from shared.schemas.measure_catalogue import Need
from worker.evaluation.findings import Findings, found, missing
from worker.evaluation.intervals import share
from worker.evaluation.views import Case, View


def measure(case: Case) -> Findings:
    """Yield both for every place that shows what is forgotten."""
    places = list(case.targets())
    if not places:
        yield from missing(Need.TARGET, "original_text_recall", "original_image_recall")
    for view in places:
        yield from _of_place(case, view)


def _of_place(case: Case, view: View) -> Findings:
    old, new = case.original, case.unlearned
    whole, text, image = (
        share(view.hits(images, texts)[view.forget])
        for images, texts in ((old, old), (new, old), (old, new))
    )
    yield found("original_text_recall", view.name, text, whole)
    yield found("original_image_recall", view.name, image, whole)
