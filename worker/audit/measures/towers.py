"""Which tower forgot? Recall with one tower of the original put back: anyone who has the public weights can do that.

`original_text_recall`: image tower unlearned, text tower original; an edit of the text tower alone does not survive it.
`original_image_recall`: image tower original, text tower unlearned.
"""

from shared.measures import Need
from shared.schemas.measures import Value
from worker.audit.findings import Findings, missing, of_each
from worker.audit.intervals import share
from worker.audit.subject import Subject
from worker.audit.views import Case, View


def measure(case: Case) -> Findings:
    """Yield both for every place that shows what is forgotten."""
    places = list(case.targets())
    if not places:
        yield from missing(Need.TARGET, "original_text_recall", "original_image_recall")
    for view in places:
        yield from _of_place(case, view)


def _of_place(case: Case, view: View) -> Findings:
    def original_text(subject: Subject) -> Value:
        return share(view.hits(subject, case.original)[view.forget])

    def original_image(subject: Subject) -> Value:
        return share(view.hits(case.original, subject)[view.forget])

    yield of_each(case, "original_text_recall", view.name, original_text)
    yield of_each(case, "original_image_recall", view.name, original_image)
