"""The page: what stands on it, that nothing on it can act, and that it stays small."""

import itertools
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from shared.schemas.measure_catalogue import CATALOGUE, SAMPLES
from shared.schemas.methods import METHOD_PARAMETERS
from shared.schemas.report import Report
from tests.support.reports import change, checked, evaluation, measure, report, taken
from worker.report_page import page as page_of
from worker.report_page.page import STYLE
from worker.report_page.words import METHODS

SHA256 = "5e" * 32


def render(shown: Report) -> str:
    return page_of.render(shown, SHA256)


HOSTILE = "</svg><script>alert(1)</script>\"'><img src=x onerror=alert(2)>&{{1357*7}}"
VOID = {"meta", "img", "br"}
ELSEWHERE = re.compile(r"""(?:src|href|srcset|action|data|poster)\s*=\s*["']?(?!#|data:image/)[^"'>]|url\(|@import""")


class Outline(HTMLParser):
    """Collects elements, and fails where they do not nest."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_what_an_officer_asks_first_stands_first() -> None:
    page = Outline(render(report()))
    text = page.text
    order = [
        "Forgetting “umbrella”",
        "Passed: the edited model meets the one threshold",
        "Of 100 test images of “umbrella”",
        "What was asked To forget",
        "What was required",
        "What was done The",
        "What this report does not show",
        "How to check this page",
        "Before and after, class by class",
        "The course of forgetting",
        "What it cost elsewhere",
        "Harder questions Low",
        "Glossary Accuracy",
        "For engineers Weights",
    ]
    places = [text.index(words) for words in order]
    assert places == sorted(places)
    assert "original model recognised 90 and the edited model 0." in text
    assert "Other prompts may behave differently." in text


def test_a_missed_threshold_is_said_first() -> None:
    missed = {"measure": "max_retain_drop", "limit": 0.02, "value": 0.0312, "passed": False, "where": "objects",
              "n": 320, "low": 0.012, "high": 0.051}  # fmt: skip
    text = Outline(render(report(verdict="failed", thresholds=[missed]))).text
    assert "Failed: the edited model misses its only threshold. Its weights are in quarantine" in text
    assert "2.0 % 3.1 % 1.2 to 5.1 % 320 missed" in text


def test_a_threshold_on_a_measure_has_its_title() -> None:
    limit = {"measure": "worst_prompt", "limit": 0.05, "value": 0.01, "passed": True, "where": "objects"}
    other = limit | {"measure": "some_new_measure"}
    steps = limit | {"measure": "relearn_steps", "limit": 30, "value": 45}
    measures = [measure("forgetting", "worst_prompt"), measure("relearning", "relearn_steps", unit="count")]
    text = Outline(render(report(thresholds=[limit, other, steps], measures=measures))).text
    assert "Title of relearn_steps on objects 30 45 – met" in text
    assert "Title of worst_prompt on objects" in text
    assert "Some new measure on objects" in text


def test_measures_stand_in_the_section_of_their_group_and_what_is_missing_is_said() -> None:
    measures = [
        measure("towers", "swap", reference={"value": 0.02}, detail="the original text encoder"),
        measure("reference", "tow", unit="ratio", original=None, unlearned={"value": -0.5}),
    ]
    missing = [{"name": "relearn_auc", "reason": "The request gives no forget images."}]
    text = Outline(render(report(measures=measures, not_measured=missing, evidence="association"))).text
    towers = text[text.index("One encoder at a time A CLIP") : text.index("Beside a model that never saw the data The")]
    assert "Title of swap objects, n = 80; lower is better; the original text encoder" in towers
    assert "90.0 % 80.0 to 95.0 % 12.5 % 5.0 to 20.0 % 2.0 %" in towers
    assert "\u22120.50" in text
    assert "relearn auc The request gives no forget images." in text
    assert "This report holds no measure of: other ways to ask;" in text
    assert "Its image encoder can still tell these images apart" in text
    assert "How swap is defined. A paper, equation 3" in text


def test_the_numbers_to_the_contrary_stand_beside_the_verdict() -> None:
    measures = [
        taken("forget_recall", 0.0),
        taken("original_text_recall", 0.0),
        taken("original_image_recall", 0.8375),
        taken("probe_recall", 0.975),
        taken("prototype_recall", 0.9727),
        taken("worst_prompt_recall", 0.3625, detail="a photo of a paraguas"),
        taken("class_auc", 1.0),
        taken("probe_recall", 1.0, where=SAMPLES),
    ]
    text = Outline(render(report(measures=measures, evidence="association"))).text
    first_screen = text[: text.index("What was asked")]
    assert "With the original text encoder: 0 of 80" in first_screen
    assert "By a classifier on the image features: 97.5 %" in first_screen
    worst = first_screen[first_screen.index("Where it is still found most") : first_screen.index("Asked")]
    assert re.findall(r"(\d+\.\d) % \(original", worst) == ["97.5", "97.3", "83.8"]
    assert "100.0 %" not in worst


def test_words_that_the_original_does_not_know_stand_apart_and_are_not_counted() -> None:
    measures = [
        measure("forgetting", "worst_prompt_recall", title="Recall under the worst prompt"),
        measure("forgetting", "misspelling_recall", title="Recall under the worst misspelling", counts=False,
                unlearned={"value": 0.51}, detail="a typical fih"),
    ]  # fmt: skip
    text = Outline(render(report(measures=measures))).text
    assert "worst misspelling" not in text[: text.index("For engineers Weights")]
    assert "not counted: the original does not know this word; objects; a typical fih" in text
    assert "51.0 %" not in text[: text.index("For engineers Weights")]


def test_rows_of_samples_do_not_stand_among_rows_of_images() -> None:
    measures = [
        measure("towers", "original_text_recall", where=where, title="With the text encoder")
        for where in (SAMPLES, "objects")
    ]
    text = Outline(render(report(measures=measures))).text
    assert text.index("On objects Measure") < text.index("On synthetic samples Measure")


def test_what_was_not_measured_is_called_by_its_title() -> None:
    missing = [{"name": "membership_tpr_1", "reason": "needs 100 images"}]
    text = Outline(render(report(not_measured=missing))).text
    assert f"{CATALOGUE['membership_tpr_1'].title} needs 100 images" in text
    assert "membership tpr" not in text


def test_a_missed_threshold_comes_with_what_can_be_done() -> None:
    missed = {"measure": "max_forget_accuracy", "limit": 0.05, "value": 0.9, "passed": False, "where": "objects"}
    text = Outline(render(report(verdict="failed", thresholds=[missed]))).text
    assert "What you can do Too much is still recognised" in text
    assert "with the method auto" in text
    dropped = missed | {"measure": "max_transfer_drop"}
    assert "Too much else was lost" in Outline(render(report(verdict="failed", thresholds=[dropped]))).text
    assert "What you can do" not in Outline(render(report())).text


def test_a_model_of_an_earlier_erasure_says_so() -> None:
    before = {"id": "mdl_2", "architecture": "ViT-B-32", "digest": "0" * 64, "made_by": "job_earlier"}
    request = report().request.model_dump(mode="json", by_alias=True)
    request["data"]["earlier"] = [{"name": "umbrellas of May", "dataset": "ds_1"}]
    text = Outline(render(report(model_before=before, request=request))).text
    assert (
        "result of an earlier erasure, job job_earlier; the request names what was forgotten before: umbrellas" in text
    )
    assert "Came from" not in Outline(render(report())).text


def test_it_is_said_which_labels_score_a_set() -> None:
    sets = [
        evaluation("objects", ["umbrella", "fish", "tree"], forget="umbrella"),
        evaluation("shapes", ["star", "ring"]),
    ]
    text = Outline(render(report(evaluations=sets))).text
    assert "among the 3 labels of the request" in text
    assert "among the 2 classes of the set itself" in text


def test_the_page_names_the_report_that_it_shows_and_how_to_check_it() -> None:
    text = Outline(render(report())).text
    assert f"SHA-256 of report.json {SHA256}" in text
    assert "efface verify certificate.json --report report.json --report-page report.html" in text


def test_images_in_two_roles_are_told_with_their_counts() -> None:
    found = {
        "place": "objects",
        "seen_as": "forget",
        "identical": 3,
        "similar": 2,
        "compared": 960,
        "example": "cat/1.png",
    }
    text = Outline(render(report(separation=[found]))).text
    assert "objects such as cat/1.png data.forget 3 2 of 960" in text


def test_each_printed_page_names_the_job_and_nothing_else_gets_into_the_style() -> None:
    content = render(report(job_id='job_1"; } </style><script>alert(1)</script>'))
    page = Outline(content)
    assert not page.attributes("script")
    style = content[content.index("<style>") : content.index("</style>")]
    assert 'content: "Erasure report, job job_1stylescriptalert1script";' in style


def test_curves_say_of_which_stage_they_are_and_join_no_two_points() -> None:
    def points(count: int) -> list[dict[str, float]]:
        return [{"x": step, "y": 0.6} for step in range(count)]

    curves = [
        {
            "name": f"steps.{stage}.recall",
            "title": "?",
            "x_label": "step",
            "y_label": "recall",
            "unlearned": points(count),
        }
        for stage, count in (("forgetting", 9), ("restoring", 2))
    ]
    content = render(report(curves=curves))
    text = Outline(content).text
    assert "Stage “forgetting” (lower recognition): images to be forgotten" in text
    assert "Stage “restoring” (mix with the original): images" in text
    charts = re.findall("<svg.*?</svg>", content[content.index('id="curve"') : content.index('id="transfer"')], re.S)
    lines = ["mark-line" in chart for chart in charts]
    assert lines == [True, False]


def test_curves_stand_where_they_belong() -> None:
    steps = [{"x": 0, "y": 0.98}, {"x": 1, "y": 0.0}]
    course = {"x_label": "step", "unlearned": steps}
    curves = [
        course | {"name": "steps.forgetting.forget_accuracy", "title": "The course", "y_label": "forget accuracy"},
        course | {"name": "steps.forgetting.loss", "title": "A loss", "y_label": "loss"},
        course | {"name": "relearn", "title": "The return", "y_label": "recall", "reference": steps},
    ]
    page = Outline(render(report(curves=curves)))
    places = [
        page.text.index(words)
        for words in ("The course of forgetting", "The course ", "A loss", "How easily it", "The return")
    ]
    assert places == sorted(places)
    assert page.attributes("details")
    labels = [a.get("aria-label") for a in page.attributes("div") if a.get("role") == "img"]
    assert "The return: 0.98 at step 0, 0 at step 1." in labels


def test_nothing_that_a_request_says_becomes_markup() -> None:
    labels = [HOSTILE, "fish", "tree"]
    request = report(labels).request.model_dump(mode="json") | {
        "external_id": HOSTILE,
        "metadata": {HOSTILE[:60]: HOSTILE},
    }
    curve = {"name": "relearn", "title": HOSTILE, "x_label": HOSTILE, "y_label": HOSTILE,
             "unlearned": [{"x": 0, "y": 1}, {"x": 1, "y": 2}]}  # fmt: skip
    sheet = {"samples": {"contact_sheet": 'data:image/jpeg;base64,AA" onerror="alert(1)'}, "note": HOSTILE}
    own = evaluation(HOSTILE, labels, forget=HOSTILE)
    hostile = report(labels, request=request, curves=[curve], method=sheet, evaluations=[own],
                     measures=[measure("towers", HOSTILE, title=HOSTILE, detail=HOSTILE, where=HOSTILE)],
                     not_measured=[{"name": HOSTILE, "reason": HOSTILE}], limits=[HOSTILE])  # fmt: skip
    page = Outline(render(hostile))
    assert not page.attributes("script")
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert len(page.attributes("img")) == 1
    assert page.text.count("<script>alert(1)</script>") > 10
    assert "9499" not in page.text


def test_the_page_loads_nothing_and_allows_nothing() -> None:
    content = render(report(method={"samples": {"contact_sheet": "data:image/jpeg;base64,AAAA"}}))
    page = Outline(content)
    assert not ELSEWHERE.search(content)
    assert not [name for name, attributes in page.elements if "style" in attributes]
    assert not {name for name, _ in page.elements} & {"script", "link", "iframe", "object", "form", "base"}
    (policy,) = (m["content"] for m in page.attributes("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")


def test_a_reader_that_cannot_see_gets_headings_headers_and_words_for_pictures() -> None:
    page = Outline(render(report(method={"samples": {"contact_sheet": "data:image/jpeg;base64,AAAA"}})))
    levels = [int(name[1]) for name, _ in page.elements if re.fullmatch("h[1-6]", name)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert levels.count(1) == 1
    assert all(cell.get("scope") in {"row", "col"} for cell in page.attributes("th"))
    assert len(page.attributes("caption")) == len(page.attributes("table"))
    assert all(image.get("alt") for image in page.attributes("img"))
    charts = [a for a in page.attributes("div") if a.get("role") == "img"]
    assert len(charts) == len(page.attributes("svg")) > 0
    assert all(chart["aria-label"] for chart in charts)


def test_nothing_is_claimed_of_weights_that_no_measurement_can_show() -> None:
    for evidence in (None, "none", "association", "image_encoder", "both"):
        text = Outline(render(report(evidence=evidence))).text.lower()
        assert not re.search(r"delet|anonym|guarantee|erased|removed for good", text)


def test_a_request_without_any_image_gets_a_page_too() -> None:
    target = {"accuracy": None, "synthetic_accuracy": change(1.0, 0.25, 4), "siblings": None}
    text = Outline(render(report(target=target, evaluations=[], thresholds=[], stages=[]))).text
    assert "Of 4 synthetic samples, the original model recognised 4 and the edited model 1." in text
    assert "no class was measured on images" in text
    assert "The request sets no threshold." in text
    assert (
        "Nothing was given on which"
        in Outline(render(report(target=target | {"synthetic_accuracy": None}, evaluations=[]))).text
    )


def test_a_subgroup_and_the_rest_of_its_class_are_told_apart() -> None:
    rows = [{"name": "fish", "role": role, "accuracy": change(1.0, 0.5)} for role in ("sibling", "forget")]
    own = evaluation("target", ["fish", "tree"], role="target", forget=change(1.0, 0.5), classes=rows)
    own["role"], own["forget"] = "target", change(1.0, 0.5)
    request = {
        "model": {"id": "m"},
        "target": {"type": "subgroup", "class": "fish", "subgroup": "sketch"},
        "method": {"name": "three_stage"},
        "data": {"forget": "ds_1", "retain": "ds_2"},
    }
    target = {"accuracy": change(1.0, 0.02), "synthetic_accuracy": None, "siblings": change(1.0, 0.99)}
    text = Outline(render(report(request=request, target=target, evaluations=[own]))).text
    assert "Forgetting “fish” as “sketch”" in text
    assert text.index("fish (sketch)") < text.index("fish (others)")
    assert "Rest of the class “fish”" in text


def test_the_page_says_of_every_method_how_it_worked() -> None:
    assert set(METHODS) == set(METHOD_PARAMETERS)
    request = {
        "model": {"id": "m"},
        "target": {"type": "class", "class": "cat", "labels": ["cat", "dog"]},
        "method": {"name": "auto"},
    }
    text = Outline(render(report(request=request, method={"name": "auto", "chosen": "slug"}))).text
    assert METHODS["auto"] in text
    assert METHODS["slug"] in text


@pytest.mark.parametrize(
    ("method", "chosen", "said"),
    [
        ("synthetic", None, "names, and no image"),
        ("delete", None, "images of what is to be forgotten"),
        ("slug", None, "images of what is to be forgotten, and of what is to stay"),
        ("auto", None, "images of what is to be forgotten, and of what is to stay"),
        ("auto", "null_space", "names, and no image"),
    ],
)
def test_images_that_a_method_does_not_read_were_not_given_to_it(method: str, chosen: str | None, said: str) -> None:
    request = {
        "model": {"id": "m"},
        "target": {"type": "class", "class": "cat", "labels": ["cat", "dog"]},
        "method": {"name": method},
        "data": {"forget": "ds_1", "retain": "ds_2"},
    }
    notes = {"name": method} | ({"chosen": chosen} if chosen else {})
    text = Outline(render(report(request=request, method=notes))).text
    part = text.split("Given to the method", 1)[1][:200]
    assert part.strip().startswith(said)
    assert ("of what is to stay" in part) == ("of what is to stay" in said)


def test_a_reference_is_named_by_its_digest() -> None:
    reference = {"id": "mdl_9", "architecture": "ViT-B-16", "digest": "9" * 64}
    text = Outline(render(report(model_reference=reference))).text
    assert "9" * 64 in text
    assert "by the request’s word never saw" in text
    assert "never saw what is to be forgotten (digest" not in Outline(render(report())).text


@pytest.mark.parametrize("count", [2, 30, 41, 1000])
def test_many_classes_are_drawn_as_the_worst_and_the_best(count: int) -> None:
    labels = [f"class number {number}" for number in range(count)]
    content = render(report(labels))
    page = Outline(content)
    drawn = {text for text in page.texts if text.startswith("class number")}
    rows = [1 for name, _ in page.elements if name == "tr"]
    assert len(rows) > count  # every class is in the table
    svg = ElementTree.fromstring  # every chart is well-formed by itself
    shown = [
        t.text
        for part in re.findall("<svg.*?</svg>", content, re.S)
        for t in svg(part).iter()
        if t.tag.endswith("}text")
    ]
    names = [text for text in shown if text and text.startswith("class")]
    assert len(names) == (count if count <= 40 else 19)
    assert labels[0] in drawn
    assert names[:2] == [f"class number {number}" for number in (0, count - 1)]
    assert len(content.encode()) < 2_000_000


def test_fifty_sets_of_a_thousand_classes_stay_below_two_megabytes() -> None:
    labels = [f"a class with quite a long name, number {number}" for number in range(1000)]
    sets = [evaluation("own", labels, forget=labels[0])] + [evaluation(f"set {n}", labels[1:]) for n in range(50)]
    sheet = {"samples": {"contact_sheet": "data:image/jpeg;base64," + "A" * 590_000}, "log": ["x" * 100] * 10_000}
    content = render(report(labels, evaluations=sets, method=sheet))
    assert len(content.encode()) < 2_000_000
    page = Outline(content)
    assert "43 more sets, which lost least," in page.text
    spoken = [a["aria-label"] or "" for a in page.attributes("div") if a.get("role") == "img"]
    assert {words.rsplit("in ", 1)[1] for words in spoken} == {"the table that follows.", "report.json."}


def test_the_same_report_gives_the_same_bytes() -> None:
    assert render(report()) == render(Report.model_validate_json(report().model_dump_json()))


def test_reports_of_these_tests_keep_to_the_published_schema() -> None:
    assert checked(report(measures=[measure("towers", "swap")]).model_dump_json()).job_id == "job_1"


def test_long_names_keep_their_ends_in_charts() -> None:
    labels = ["a fish", "a very long name of a class, number 1", "a very long name of a class, number 2"]
    names = re.findall(r">(a [^<]*\u2026[^<]*)</text>", render(report(labels)))
    assert len(set(names)) == 2
    assert all(len(name) <= 18 for name in names)
    assert "a very long name of a class, number 2" in Outline(render(report(labels))).texts


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb` (WCAG 2.2)."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_colours_can_be_told_apart_by_day_at_night_and_on_paper() -> None:
    palettes = [
        dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block)) for block in re.findall(r":root \{(.*?)\}", STYLE, re.S)
    ]
    assert len(palettes) == 3
    for colours in palettes:
        on_paper = [colours[name] for name in ("ink", "muted", "after", "passed", "failed")]
        assert all(contrast(colour, colours["paper"]) >= 4.5 for colour in on_paper)
        assert all(contrast(colours[name], colours[f"{name}-panel"]) >= 4.5 for name in ("passed", "failed"))
        assert contrast(colours["ink"], colours["panel"]) >= 4.5
        assert all(contrast(colours[name], colours["paper"]) >= 3 for name in ("before", "after", "reference"))
