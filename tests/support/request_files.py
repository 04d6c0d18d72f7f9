"""Request files as people write them, with their images on disk: what every door must read alike."""

import io
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.support import requests

LABELS = ("horse", "dog", "cat")
IMAGE_METHODS = ("three_stage", "delete", "pbu", "slug", "clip_erase", "gradient_ascent", "auto")


def shard(path: Path, *labels: str, names: tuple[str, ...] = ()) -> Path:
    """Write a WebDataset shard with one image of each label; with `names` the labels are written as numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files: dict[str, bytes] = {}
    for number, label in enumerate(labels):
        files[f"{number}.png"] = requests.png(number)
        files[f"{number}.cls"] = (str(names.index(label)) if names else label).encode()
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def tarred(path: Path, *classes: str) -> Path:
    """Write a tar of class folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        archive.add(requests.folder(path.with_suffix(".unpacked"), *classes), "")
    return path


def zipped(path: Path, *classes: str) -> Path:
    """Write a zip of class folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return requests.archive(path.with_suffix(".zip"), *classes)


def wrapped(path: Path, *classes: str) -> Path:
    """Write class folders inside of another folder."""
    requests.folder(path / "all", *classes)
    return path


def split(path: Path, *classes: str) -> Path:
    """Write class folders twice, as the parts of a set that is split."""
    for part in ("train", "val"):
        requests.folder(path / part, *classes)
    return path


def tabled(path: Path, *classes: str) -> Path:
    """Write images in one folder, and a table that tells their classes."""
    path.mkdir(parents=True)
    rows = ["file_name,label"]
    for number, name in enumerate(classes):
        (path / f"{number}.png").write_bytes(requests.png(number))
        rows.append(f"{number}.png,{name}")
    (path / "metadata.csv").write_text("\n".join(rows))
    return path


def flat(path: Path, *classes: str) -> Path:
    """Write images with no class folder."""
    path.mkdir(parents=True)
    for number in range(len(classes)):
        (path / f"{number}.png").write_bytes(requests.png(number))
    return path


def shards(path: Path, *classes: str) -> Path:
    """Write a folder of shards, one for each class, whose members are called alike."""
    for number, name in enumerate(classes):
        shard(path / f"{number:05d}.tar", name)
    return path


def numbered_shards(path: Path, *classes: str) -> Path:
    """Write a folder of shards whose labels count the lines of a file beside them."""
    for number, name in enumerate(classes):
        shard(path / f"{number:05d}.tar", name, names=classes)
    (path / "classnames.txt").write_text("\n".join(classes))
    return path


def shards_with_names(path: Path, *classes: str) -> Path:
    """Write a folder of shards whose labels count the lines of a file in the first of them."""
    numbered_shards(path, *classes)
    names = path / "classnames.txt"
    with tarfile.open(path / "00000.tar", "a") as archive:
        archive.add(names, names.name)
    names.unlink()
    return path


LAYOUTS: Mapping[str, Callable[..., Path]] = {
    "folders": partial(requests.folder, images=2),
    "wrapped folders": wrapped,
    "split folders": split,
    "table": tabled,
    "flat folder": flat,
    "zip": zipped,
    "tar": tarred,
    "shard": lambda path, *classes: shard(path.with_suffix(".tar"), *classes),
    "folder of shards": shards,
    "folder of numbered shards": numbered_shards,
    "folder of shards that name their numbers": shards_with_names,
}

Make = Callable[["Disk"], dict[str, Any]]


@dataclass(frozen=True)
class Disk:
    """Where a request's files are written."""

    folder: Path
    model: str
    other_model: str

    def images(self, *classes: str, layout: str = "folders", name: str = "images") -> str:
        """Write images, and return the path that a request gives."""
        return str(LAYOUTS[layout](self.folder / name, *classes))

    def evaluation(self, *classes: str, layout: str = "folders", name: str = "own") -> dict[str, str]:
        """Write an evaluation set, and return its entry."""
        return {"name": name, "dataset": self.images(*classes, layout=layout, name=name)}

    def request(self, **changes: Any) -> dict[str, Any]:
        """Return a request with some fields changed; those of `target` one by one."""
        target = {"type": "class", "class": "horse", "labels": list(LABELS)} | changes.pop("target", {})
        body = {"model": {"source": self.model}, "target": target, "method": {"name": "synthetic"}}
        return body | changes

    def measured(self, *classes: str, **changes: Any) -> dict[str, Any]:
        """Return a request with one evaluation set of these folders."""
        return self.request(data={"evaluation": [self.evaluation(*classes)]}, **changes)


def _subgroup(**target: Any) -> dict[str, Any]:
    return {"type": "subgroup", "class": "horse", "subgroup": "sketch"} | target


def _without_labels(disk: Disk, *retained: str) -> dict[str, Any]:
    body = disk.request(method={"name": "delete"})
    body["target"] = _subgroup()
    body["data"] = {
        "forget": disk.images("sketches", name="forget"),
        "retain_test": disk.images(*retained, name="retain"),
    }
    return body


def _of_layout(layout: str, method: str) -> Make:
    def make(disk: Disk) -> dict[str, Any]:
        sets = [
            disk.evaluation(*LABELS, layout=layout),
            disk.evaluation("cup", "bowl", layout=layout, name="other"),
        ]
        return disk.request(method={"name": method}, data={"evaluation": sets})

    return make


def _of_method(method: str, kind: str) -> Make:
    def make(disk: Disk) -> dict[str, Any]:
        target = _subgroup(labels=list(LABELS)) if kind == "subgroup" else {}
        stays = LABELS if kind == "subgroup" else LABELS[1:]
        data = {"forget": disk.images("horse", name="forget"), "retain": disk.images(*stays, name="retain")}
        return disk.request(target=target, method={"name": method}, data=data)

    return make


def _twice(disk: Disk, first: str, second: str) -> dict[str, Any]:
    """Return a request that gives one data set in two roles."""
    body = _of_method("delete", "subgroup")(disk)
    return body | {"data": body["data"] | {second: body["data"][first]}}


def _of_earlier(*classes: str, labels: list[str] | None = None) -> Make:
    def make(disk: Disk) -> dict[str, Any]:
        entry = disk.evaluation(*classes, name="before") | ({} if labels is None else {"labels": labels})
        return disk.request(data={"evaluation": [disk.evaluation(*LABELS)], "earlier": [entry]})

    return make


SOUND: dict[str, Make] = {
    **{
        f"{layout}, {method}": _of_layout(layout, method)
        for layout in LAYOUTS
        if layout != "flat folder"
        for method in ("synthetic", "null_space")
    },
    **{f"{method} of a {kind}": _of_method(method, kind) for method in IMAGE_METHODS for kind in ("class", "subgroup")},
    "names alone": lambda d: d.request(),
    "auto, names alone": lambda d: d.request(method={"name": "auto"}),
    "several classes": lambda d: d.measured(
        *LABELS, target={"class": ["horse", "dog"], "synonyms": {"Horse": ["pony"]}}
    ),
    "folders in another case": lambda d: d.measured("Horse", "DOG", "cat"),
    "labels in another case": lambda d: d.measured(
        *LABELS, target={"class": "HORSE", "labels": ["Horse", "Dog", "Cat"]}
    ),
    "underscores for spaces": lambda d: d.measured(
        "fire_truck", "sea_cow", target={"class": "fire truck", "labels": ["fire truck", "sea cow"]}
    ),
    "spaces for underscores": lambda d: d.measured(
        "fire truck", "sea cow", target={"class": "fire_truck", "labels": ["fire_truck", "sea_cow"]}
    ),
    "signs of HTML": lambda d: d.measured(
        "rock & roll", "jazz", target={"class": "rock &amp; roll", "labels": ["rock &amp; roll", "jazz"]}
    ),
    "curly quotes": lambda d: d.measured(
        "potter's", "cat", target={"class": "potter\u2019s", "labels": ["potter\u2019s", "cat"]}
    ),
    "mojibake": lambda d: d.measured(
        "caf\u00c3\u00a9", "cat", target={"class": "caf\u00e9", "labels": ["caf\u00e9", "cat"]}
    ),
    "two folders of one name": lambda d: d.measured("horse", "Cat", "cat", "dog"),
    "a folder more than labels": lambda d: d.measured(*LABELS, "zebra_x"),
    "a folder that is nearly a label": lambda d: d.measured("horse", "dogs", "cat"),
    "a folder of any name to forget": lambda d: d.request(
        method={"name": "delete"},
        data={"forget": d.images("brown ones", name="forget"), "evaluation": [d.evaluation(*LABELS)]},
    ),
    "a folder fewer than labels": lambda d: d.measured("horse", "cat"),
    "the target alone": lambda d: d.measured("horse", thresholds={"max_retain_drop": None}),
    "no set with the target": lambda d: d.measured("cup", "bowl"),
    "a set that shares some labels": lambda d: d.request(
        data={"evaluation": [d.evaluation(*LABELS), d.evaluation("dog", "wolf", name="other")]}
    ),
    "a set of one class": lambda d: d.request(
        data={"evaluation": [d.evaluation(*LABELS), d.evaluation("cup", name="other")]}
    ),
    "earlier": _of_earlier("cat"),
    "earlier with labels": _of_earlier("Fish", labels=["fish", "bird"]),
    "a subgroup without labels": lambda d: _without_labels(d, "horse", "Dog", "dog", "cat"),
    "a subgroup in another case": lambda d: (
        _of_method("delete", "subgroup")(d) | {"target": _subgroup(labels=["Horse", "dog", "cat"])}
    ),
    "both tests beside a set that shows the class": lambda d: d.request(
        data={
            "evaluation": [d.evaluation(*LABELS)],
            "forget_test": d.images("horse", name="ft"),
            "retain_test": d.images("Dog", "cat", name="rt"),
        }
    ),
    "test images of what is forgotten beside a set that shows the class": lambda d: d.request(
        data={"evaluation": [d.evaluation(*LABELS)], "forget_test": d.images("horse", name="ft")}
    ),
    "test images of what stays beside a set that shows the class": lambda d: d.request(
        data={"evaluation": [d.evaluation(*LABELS)], "retain_test": d.images("Dog", name="rt")}
    ),
    "images to forget and no other": lambda d: d.request(data={"forget": d.images("horse", name="f")}),
    "proxy and calibration": lambda d: (
        _of_method("three_stage", "class")(d)
        | {
            "data": {
                "forget": d.images("horse", name="f"),
                "retain": d.images("dog", "cat", name="r"),
                "proxy": d.images("a", "b", layout="flat folder", name="p"),
                "calibration": d.images("dog", "fish", name="c"),
                "evaluation": [d.evaluation(*LABELS)],
            }
        }
    ),
    "thresholds": lambda d: d.measured(*LABELS, thresholds={"max_forget_accuracy": 0.3, "max_retain_drop": None}),
    "measures": lambda d: d.measured(
        *LABELS, thresholds={"measures": [{"measure": "worst_prompt_recall", "max": 0.9, "where": "OWN"}]}
    ),
    "a reference": lambda d: d.measured(*LABELS, audit={"reference": {"source": d.other_model}}),
    "kinds and names": lambda d: d.measured(
        *LABELS, audit={"names": {"HORSE": ["steed"]}, "kinds": {"Horse": "animal"}}
    ),
    "synonyms": lambda d: d.measured(*LABELS, target={"synonyms": ["pony"]}),
    "everything else": lambda d: d.request(
        external_id="DSR-1", received_at="2026-11-02T09:00:00Z", metadata={"desk": "a"}, seed=7
    ),
}

WRONG: dict[str, Make] = {
    **{f"flat folder, {method}": _of_layout("flat folder", method) for method in ("synthetic", "null_space")},
    "nothing to tell by": lambda d: d.request(method={"name": "null_space"}),
    "no images for the method": lambda d: d.measured(*LABELS, method={"name": "three_stage"}),
    "a subgroup by name": lambda d: d.request(target=_subgroup(labels=list(LABELS))),
    "a folder that is nearly the class": lambda d: d.measured("horses", "dog", "cat"),
    "a folder that is a synonym": lambda d: d.measured("pony", "dog", target={"synonyms": ["pony"]}),
    "a class that is no label": lambda d: d.measured(*LABELS, target={"class": "horses"}),
    "a subgroup of no label": lambda d: d.request(target=_subgroup(**{"class": "zebra", "labels": list(LABELS)})),
    "labels twice": lambda d: d.request(target={"labels": ["horse", "rock & roll", "rock &amp; roll"]}),
    "a synonym that is a label": lambda d: d.request(target={"synonyms": ["DOG"]}),
    "synonyms of another": lambda d: d.request(target={"synonyms": {"dog": ["hound"]}}),
    "labels that differ too late": lambda d: d.request(target={"labels": ["horse", "1" * 99 + "a", "1" * 99 + "b"]}),
    "other images to forget": lambda d: d.request(data={"forget": d.images("horse", "dog", name="forget")}),
    "images of another label to forget": lambda d: d.request(data={"forget": d.images("DOG", name="forget")}),
    "several classes in one odd folder": lambda d: d.request(
        target={"class": ["horse", "dog"]},
        method={"name": "delete"},
        data={"forget": d.images("these", name="f"), "retain": d.images("cat", "HORSE", name="r")},
    ),
    "retained images of the class": lambda d: d.request(
        data={"forget": d.images("horse", name="f"), "retain": d.images("HORSE", "cat", name="r")}
    ),
    "retained images of no label": lambda d: d.request(
        data={"forget": d.images("horse", name="f"), "retain": d.images("fish", "cat", name="r")}
    ),
    "a subgroup without other classes": lambda d: _without_labels(d, "HORSE"),
    "earlier of no label": _of_earlier("fish"),
    "earlier whose labels lack it": _of_earlier("fish", labels=["bird", "cat"]),
    "earlier labels twice": _of_earlier("fish", labels=["fish", "FISH"]),
    "sets of one name": lambda d: d.request(
        data={"evaluation": [d.evaluation(*LABELS), d.evaluation("cup", name="OWN")]}
    ),
    "a set called as a place": lambda d: d.request(data={"evaluation": [d.evaluation(*LABELS, name="Target")]}),
    "a threshold that nothing answers": lambda d: d.request(thresholds={"max_transfer_drop": 0.1}),
    "a measure that nothing answers": lambda d: d.request(
        thresholds={"measures": [{"measure": "probe_recall", "max": 0.5}, {"measure": "prob_recall", "max": 0.5}]}
    ),
    "a measure in no place": lambda d: d.measured(
        *LABELS, thresholds={"measures": [{"measure": "worst_prompt_recall", "max": 0.5, "where": "elsewhere"}]}
    ),
    "a bound that so few images cannot meet": lambda d: d.measured(*LABELS, thresholds={"max_forget_upper_end": 0.2}),
    "a measure that so few images cannot meet": lambda d: d.measured(
        *LABELS, thresholds={"measures": [{"measure": "forget_recall", "max": 0.1, "where": "OWN"}]}
    ),
    "a single image to part": lambda d: d.request(
        method={"name": "delete"},
        data={
            "forget": d.images("horse", layout="zip", name="f"),
            "retain": d.images("dog", "cat", name="r"),
        },
    ),
    "test images of what stays of no label": lambda d: d.request(
        data={"evaluation": [d.evaluation(*LABELS)], "retain_test": d.images("fish", name="rt")}
    ),
    "images to forget and no way to tell what it cost": lambda d: d.request(
        method={"name": "delete"}, data={"forget": d.images("horse", name="f")}
    ),
    "one set to forget and to keep": lambda d: _twice(d, "forget", "retain"),
    "one set to learn from and to measure on": lambda d: _twice(d, "retain", "retain_test"),
    "the model as its reference": lambda d: d.measured(*LABELS, audit={"reference": {"source": d.model}}),
    "names of another class": lambda d: d.request(audit={"names": {"dog": ["hound"]}}),
    "no time zone": lambda d: d.request(received_at="2026-11-02T09:00:00"),
    "an empty id": lambda d: d.request(external_id=""),
    "a blank id": lambda d: d.request(external_id=" "),
    "an unknown field": lambda d: d.request(sede=1),
    "a model by path": lambda d: d.request(model={"path": "clip"}),
    "an unknown source": lambda d: d.request(model={"source": "./clip"}),
    "no model there": lambda d: d.request(model={"source": f"local-dir:{d.folder}/nothing"}),
    "no data there": lambda d: d.request(data={"evaluation": [{"name": "own", "dataset": f"{d.folder}/nothing"}]}),
    "data that is no archive": lambda d: d.request(
        data={"evaluation": [{"name": "own", "dataset": str(requests.safetensors(d.folder / "a.zip"))}]}
    ),
    "parameters of another method": lambda d: d.request(method={"name": "synthetic", "parameters": {"rank": 4}}),
    "an unknown method": lambda d: d.request(method={"name": "magic"}),
    "many errors": lambda d: d.measured(
        "horses",
        "dog",
        method={"name": "pbu"},
        received_at="2026-11-02T09:00:00",
        audit={"reference": {"source": "x:y"}},
    ),
}
