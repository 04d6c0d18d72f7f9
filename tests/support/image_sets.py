"""Sets of images as people have them, written by hand: each is what some tool makes, and what is in it."""

import io
import json
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from tests.support.hostile.archives import tarred, zipped
from tests.support.requests import png

Classes = dict[str, int]


def set_of(*names: str, **others: bytes) -> list[tuple[str, bytes]]:
    """Return members: images, each with pixels of its own, and other files."""
    return [(name, png(number)) for number, name in enumerate(names)] + list(others.items())


def undeclared_utf8(*names: str) -> bytes:
    """Return a zip whose names are in UTF-8 without its flag, as Archive Utility writes it."""
    return renamed({f"{number}" * len(name.encode()): name.encode() for number, name in enumerate(names)})


def renamed(names: Mapping[str, bytes], system: int = 3, extra: Callable[[bytes], bytes] | None = None) -> bytes:
    """Return a zip of images whose names are these bytes, whatever they mean; its members are first called otherwise."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number, (plain, raw) in enumerate(names.items()):
            info = zipfile.ZipInfo(plain)
            info.create_system = system
            info.extra = extra(raw) if extra else b""
            archive.writestr(info, png(number))
    content = out.getvalue()
    for plain, raw in names.items():
        assert len(plain) == len(raw)
        content = content.replace(plain.encode(), raw)
    return content


def unicode_path(text: str, stored: bytes) -> bytes:
    """Return Info-ZIP's extra field for a name."""
    data = struct.pack("<BL", 1, zlib.crc32(stored)) + text.encode()
    return struct.pack("<2H", 0x7075, len(data)) + data


def of_dos(*names: str) -> bytes:
    """Return a zip with backslashes, as .NET and Compress-Archive wrote it."""
    return renamed({name.replace("\\", "~"): name.encode() for name in names}, system=0)


def sample(key: str, label: str, field: str = "cls", image: str = "jpeg") -> list[tuple[str, bytes]]:
    """Return a sample of a shard."""
    return [(f"{key}.{image}", png(zlib.crc32(key.encode()) % 251)), (f"{key}.{field}", label.encode())]


def with_json(key: str, label: object, **more: object) -> list[tuple[str, bytes]]:
    """Return a sample whose label is in JSON."""
    return [
        (f"{key}.png", png(zlib.crc32(key.encode()) % 251)),
        (f"{key}.json", json.dumps({"label": label} | more).encode()),
    ]


def hugging_face(*labels: int | str, names: tuple[str, ...] = ("cat", "dog"), image: str = "image") -> bytes:
    """Return a Parquet file as Hugging Face's library writes it."""
    pictures = [{"bytes": png(number), "path": f"{number}.png"} for number in range(len(labels))]
    table = pa.table({image: pictures, "label": list(labels)})
    features = {image: {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
    said = {"huggingface": json.dumps({"info": {"features": features}})} if names else {}
    out = io.BytesIO()
    parquet.write_table(table.replace_schema_metadata(said), out)
    return out.getvalue()


CAT_DOG = {"cat": 1, "dog": 2}
FLAT = ("a1.png", "a2.png", "a3.png")
IMAGES = tuple(f"images/{name}" for name in FLAT)
MIXED = tarred([*sample("0", "cat"), *sample("1", "dog"), *sample("2", "dog")])

ACCEPTED: dict[str, tuple[Callable[[], bytes], str, Classes]] = {
    "class folders": (lambda: zipped(set_of("cat/1.png", "dog/1.png", "dog/2.png")), "class_folders", CAT_DOG),
    "one folder around": (
        lambda: tarred(set_of("set/cat/1.png", "set/dog/1.png", "set/dog/2.png")),
        "class_folders",
        CAT_DOG,
    ),
    "three folders around": (
        lambda: zipped(set_of("a/b/images/cat/1.png", "a/b/images/dog/1.png", "a/b/images/dog/2.png")),
        "class_folders",
        CAT_DOG,
    ),
    "train and val": (
        lambda: zipped(set_of("train/cat/1.png", "train/dog/1.png", "val/dog/2.png")),
        "split_folders",
        CAT_DOG,
    ),
    "train and val in a folder": (
        lambda: zipped(set_of("pets/train/cat/1.png", "pets/train/dog/1.png", "pets/valid/dog/1.png")),
        "split_folders",
        CAT_DOG,
    ),
    "training_set twice": (
        lambda: zipped(
            set_of("training_set/training_set/cat/1.png", "test_set/test_set/dog/1.png", "test_set/test_set/dog/2.png")
        ),
        "split_folders",
        CAT_DOG,
    ),
    "seg_train and seg_test": (
        lambda: zipped(set_of("seg_train/cat/1.png", "seg_test/dog/1.png", "seg_test/dog/2.png")),
        "split_folders",
        CAT_DOG,
    ),
    "train2017 and images inside": (
        lambda: zipped(set_of("train2017/images/cat/1.png", "val2017/images/dog/1.png", "val2017/images/dog/2.png")),
        "split_folders",
        CAT_DOG,
    ),
    "splits within the classes": (
        lambda: zipped(set_of("cat/train/1.png", "dog/train/1.png", "dog/val/2.png")),
        "class_folders",
        CAT_DOG,
    ),
    "a class of trains": (
        lambda: zipped(set_of("train/1.png", "plane/1.png", "plane/2.png")),
        "class_folders",
        {"train": 1, "plane": 2},
    ),
    "images alone": (lambda: zipped(set_of(*FLAT)), "unlabelled", {"unlabelled": 3}),
    "splits of images alone": (
        lambda: zipped(set_of("train/1.png", "train/2.png", "test/1.png")),
        "unlabelled",
        {"unlabelled": 3},
    ),
    "UTF-8 that is not declared": (
        lambda: undeclared_utf8("straße/1.png", "mühle/1.png"),
        "class_folders",
        {"straße": 1, "mühle": 1},
    ),
    "decomposed UTF-8 that is not declared": (
        lambda: undeclared_utf8("mu\u0308hle/1.png"),
        "class_folders",
        {"mühle": 1},
    ),
    "CP437": (lambda: renamed({"m?hle/1.png": b"m\x81hle/1.png"}), "class_folders", {"mühle": 1}),
    "Unicode path": (
        lambda: renamed({"???/1.png": b"_\xff_/1.png"}, extra=lambda raw: unicode_path("日本/1.png", raw)),
        "class_folders",
        {"日本": 1},
    ),
    "Unicode path of another name": (
        lambda: renamed({"???/1.png": b"cat/1.png"}, extra=lambda _: unicode_path("x/1.png", b"old")),
        "class_folders",
        {"cat": 1},
    ),
    "backslashes of MS-DOS": (lambda: of_dos("cat\\1.png", "dog\\1.png", "dog\\2.png"), "class_folders", CAT_DOG),
    "what file managers leave": (
        lambda: zipped(
            [
                *set_of("cat/1.png", "dog/1.png", "dog/2.png", "__MACOSX/cat/._1.png"),
                ("cat/.DS_Store", b"x"),
                ("dog/Thumbs.db", b"x"),
                ("desktop.ini", b"x"),
                ("README.md", b"x"),
                ("LICENSE", b"x"),
            ]
        ),
        "class_folders",
        CAT_DOG,
    ),
    "dots in names": (
        lambda: zipped(set_of("cat/a.b.c.png", "dog/v1.0.png", "dog/v1.1.png")),
        "class_folders",
        CAT_DOG,
    ),
    "suffixes of JPEG": (lambda: zipped(set_of("cat/1.jfif", "dog/1.jpe", "dog/2.JIF")), "class_folders", CAT_DOG),
    "captions in class folders": (
        lambda: zipped(
            [*set_of("cat/1.png", "dog/1.png", "dog/2.png"), ("cat/1.txt", b"a cat"), ("dog/1.txt", b"two dogs")]
        ),
        "class_folders",
        CAT_DOG,
    ),
    "notes of a tool in class folders": (
        lambda: zipped(
            [*set_of("cat/1.png", "dog/1.png", "dog/2.png"), ("cat/1.json", b'{"shapes": []}'), ("cat/1.xml", b"<a/>")]
        ),
        "class_folders",
        CAT_DOG,
    ),
    "a shard": (lambda: MIXED, "webdataset", CAT_DOG),
    "a shard in a zip": (
        lambda: zipped([*sample("0", "cat"), *sample("1", "dog"), *sample("2", "dog")]),
        "webdataset",
        CAT_DOG,
    ),
    "label.txt": (
        lambda: tarred(
            [*sample("0", "cat", "label.txt"), *sample("1", "dog", "label.txt"), *sample("2", "dog", "label.txt")]
        ),
        "webdataset",
        CAT_DOG,
    ),
    "labels of every kind": (
        lambda: tarred(
            [
                *sample("0", "cat", "txt"),
                *with_json("1", "dog", caption="a dog"),
                *sample("2", "\ufeffdog\r\n", "cls.txt"),
            ]
        ),
        "webdataset",
        CAT_DOG,
    ),
    "numbers with names": (
        lambda: tarred(
            [*sample("0", "0"), *with_json("1", 1), *with_json("2", "1"), ("classnames.txt", b"\xef\xbb\xbfcat\ndog\n")]
        ),
        "webdataset",
        CAT_DOG,
    ),
    "members beside samples": (
        lambda: tarred(
            [
                *sample("0", "cat"),
                *sample("1", "dog"),
                *sample("2", "dog"),
                ("0.seg.png", png(9)),
                ("0.left.png", png(8)),
                ("0.npy", b"x"),
                ("1.mp3", b"x"),
                ("00000.parquet", b"PAR1"),
                ("0.caption.json", b"{}"),
            ]
        ),
        "webdataset",
        CAT_DOG,
    ),
    "dots in keys": (
        lambda: tarred([*sample("v1.0", "cat"), *sample("v1.1", "dog"), *sample("v1.2", "dog")]),
        "webdataset",
        CAT_DOG,
    ),
    "keys in folders": (
        lambda: tarred([*sample("train/0", "cat"), *sample("train/1", "dog"), *sample("val/0", "dog")]),
        "webdataset",
        CAT_DOG,
    ),
    "shards in a zip": (
        lambda: zipped(
            [
                ("00000.tar", tarred(sample("0", "cat"))),
                ("00001.tar", tarred([*sample("0", "dog"), *sample("1", "dog")])),
            ]
        ),
        "webdataset",
        CAT_DOG,
    ),
    "shards in a tar, with names": (
        lambda: tarred(
            [
                ("s/0.tar", tarred(sample("0", "0"))),
                ("s/1.tar", tarred([*sample("0", "1"), *sample("1", "1")])),
                ("s/classnames.txt", b"cat\ndog"),
            ]
        ),
        "webdataset",
        CAT_DOG,
    ),
    "shards of class folders": (
        lambda: zipped([("0.tar", tarred(set_of("cat/1.png", "dog/1.png"))), ("1.tar", tarred(set_of("dog/1.png")))]),
        "class_folders",
        CAT_DOG,
    ),
    "a tar for each class": (
        lambda: tarred([("cat.tar", tarred(set_of("1.png"))), ("dog.tar", tarred(set_of("1.png", "2.png")))]),
        "class_folders",
        CAT_DOG,
    ),
    "Kaggle's table": (
        lambda: zipped(
            set_of(*(f"train/{name}" for name in FLAT), **{"train.csv": b"id,label\na1,cat\na2,dog\na3,dog\n"})
        ),
        "label_table",
        CAT_DOG,
    ),
    "table with file names": (
        lambda: zipped(
            set_of(
                *IMAGES, **{"labels.csv": b"\xef\xbb\xbffilename;class;size\na1.png;cat;3\na2.png;dog;3\na3.png;dog;3"}
            )
        ),
        "label_table",
        CAT_DOG,
    ),
    "table without a header": (
        lambda: zipped(set_of(*FLAT, **{"x.tsv": b"a1.png\tcat\na2.png\tdog\na3.png\tdog\n"})),
        "label_table",
        CAT_DOG,
    ),
    "table in UTF-16": (
        lambda: zipped(set_of(*FLAT, **{"x.csv": "id,label\na1,cat\na2,dog\na3,dog\n".encode("utf-16")})),
        "label_table",
        CAT_DOG,
    ),
    "metadata.csv": (
        lambda: zipped(
            set_of(*FLAT, **{"metadata.csv": b"file_name,label,text\na1.png,cat,a\na2.png,dog,b\na3.png,dog,c\n"})
        ),
        "label_table",
        CAT_DOG,
    ),
    "metadata.jsonl": (
        lambda: zipped(
            set_of(
                *IMAGES,
                **{
                    "images/metadata.jsonl": b"\n".join(
                        json.dumps({"file_name": name, "label": label}).encode()
                        for name, label in zip(FLAT, ("cat", "dog", "dog"), strict=True)
                    )
                },
            )
        ),
        "label_table",
        CAT_DOG,
    ),
    "metadata.jsonl for each split": (
        lambda: zipped(
            set_of(
                "train/1.png",
                "train/2.png",
                "test/1.png",
                **{
                    "train/metadata.jsonl": b'{"file_name": "1.png", "label": 0}\n{"file_name": "2.png", "label": 1}',
                    "test/metadata.jsonl": b'{"file_name": "1.png", "label": 1}',
                    "classnames.txt": b"cat\ndog",
                },
            )
        ),
        "label_table",
        CAT_DOG,
    ),
    "captions in metadata.csv": (
        lambda: zipped(set_of(*FLAT, **{"metadata.csv": b"file_name,text\na1.png,a cat\na2.png,a dog\n"})),
        "unlabelled",
        {"unlabelled": 3},
    ),
    "a table that says what the folders say": (
        lambda: zipped(set_of("cat/1.png", "dog/2.png", "dog/3.png", **{"x.csv": b"id,label\n1,cat\n2,dog\n3,dog\n"})),
        "class_folders",
        CAT_DOG,
    ),
    "Parquet": (lambda: hugging_face(0, 1, 1), "parquet", CAT_DOG),
    "Parquet of names": (lambda: hugging_face("cat", "dog", "dog", names=(), image="img"), "parquet", CAT_DOG),
    "Parquet files in a zip": (
        lambda: zipped([("data/train-0.parquet", hugging_face(0, 1)), ("data/test-0.parquet", hugging_face(1))]),
        "parquet",
        CAT_DOG,
    ),
    "Parquet with numbers, names beside": (
        lambda: zipped([("a.parquet", hugging_face(0, 1, 1, names=())), ("classnames.txt", b"cat\ndog")]),
        "parquet",
        CAT_DOG,
    ),
}
"""Name -> (builder, layout, images of each class)."""


def unpacked(content: bytes, folder: Path) -> Path:
    """Unpack a zip or tar without looking, as its owner has it on disk."""
    folder.mkdir()
    file = io.BytesIO(content)
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            archive.extractall(folder)
    else:
        file.seek(0)
        with tarfile.open(fileobj=file) as archive:
            archive.extractall(folder, filter="data")
    return folder
