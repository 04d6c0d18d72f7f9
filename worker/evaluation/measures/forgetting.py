"""Is it still recognised? Recall by the request's own prompts, and whether the class's score still
sorts images.

`forget_recall`: share of images of what is forgotten whose nearest label is theirs (Radford et al.
2021, section 3.1).

`class_auc`: recall alone is met by an edit that lowers the class's logit by a constant: its
images are then called something else, and all that tells them apart is still there. The area
under the ROC curve of phi = log(p / (1 - p)), p the class's probability, does not see constants:
phi of images of what is forgotten against that of images of other classes (Hanley and McNeil
1982)."""

from shared.schemas.measure_catalogue import Need
from shared.schemas.measures import Value
from worker.evaluation.findings import Findings, missing, of_each
from worker.evaluation.intervals import share, two_sided_auc
from worker.evaluation.subject import Subject
from worker.evaluation.views import Case, View, odds


def measure(case: Case) -> Findings:
    """Yield both for every place that shows what is forgotten."""
    places = list(case.targets())
    if not places:
        yield from missing(Need.TARGET, "forget_recall", "class_auc")
    for view in places:
        yield from _of_place(case, view)


def _of_place(case: Case, view: View) -> Findings:
    gone = case.gone(view)
    others = view.having("retain")

    def recall(subject: Subject) -> Value:
        return share(view.hits(subject)[view.forget])

    def area(subject: Subject) -> Value:
        phi = odds(view.logits(subject, subject), gone)
        return two_sided_auc(phi[view.forget], phi[others])

    yield of_each(case, "forget_recall", view.name, recall)
    if bool(others.any()):
        yield of_each(case, "class_auc", view.name, area)
    elif view is next(case.targets()):
        yield from missing(Need.REST, "class_auc")
