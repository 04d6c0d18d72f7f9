"""Hostile sets of images beyond holes in archives: what decoders, labels, shards and tables are made to do."""

import bz2
import gzip
import io
import lzma
import zipfile

from tests.support.hostile import Hostile
from tests.support.hostile.archives import (
    ARCHIVES,
    BROKEN,
    LINK,
    NO_IMAGE,
    OUTSIDE,
    PNG,
    TWICE,
    UNPACKS,
    UNREADABLE,
    in_zip,
    member,
    shard,
    special,
    tarred,
    zipped,
)
from tests.support.hostile.images import (
    chunk,
    encoded,
    frames,
    gif_comment,
    html,
    junk_in_jpeg,
    label,
    many_tags,
    parquet_of_nothing,
    png_with,
    scans,
    segments,
    text_bomb,
    tile_bomb,
    webp_canvas,
)


def of_dos(name: str) -> bytes:
    """Return a zip as packers of Windows write it, with one member of this name."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        info = zipfile.ZipInfo("horse/1.png")
        info.filename, info.create_system = name, 0
        archive.writestr(info, PNG)
    return out.getvalue()


def flat(table: bytes, name: str = "labels.csv") -> bytes:
    """Return a zip of two images in no folder, and a table."""
    return zipped([("1.png", PNG), ("2.png", PNG), (name, table)])


TAR = tarred([("horse/1.png", PNG), ("horse/2.png", PNG)])
PARTS = "too many parts"

SETS: dict[str, Hostile] = {
    # Paths and ends.
    "parent folder with backslashes of MS-DOS": Hostile(lambda: of_dos("..\\..\\x.png"), OUTSIDE),
    "drive letter with backslashes of MS-DOS": Hostile(lambda: of_dos("C:\\x.png"), OUTSIDE),
    "network share of MS-DOS": Hostile(lambda: of_dos("\\\\server\\share\\x.png"), OUTSIDE),
    "backslash in a name of Unix": Hostile(in_zip(("horse\\2.png", PNG)), "backslash"),
    "bzip2 without its end": Hostile(lambda: bz2.compress(TAR)[:-4], BROKEN),
    "xz without its end": Hostile(lambda: lzma.compress(TAR)[:-8], BROKEN),
    "gzip without its end": Hostile(lambda: gzip.compress(TAR)[:-4], BROKEN),
    "gzip with a wrong checksum": Hostile(lambda: gzip.compress(TAR)[:-8] + bytes(8), BROKEN),
    "two tars in one file": Hostile(lambda: TAR + TAR, "holds something more"),
    "zeros without end": Hostile(lambda: gzip.compress(TAR + bytes(20_000_000)), UNPACKS),
    # Shards within.
    "bomb in a shard": Hostile(lambda: zipped([("0.tar.gz", gzip.compress(tarred([("a.npy", bytes(6_000_000))])))]), UNPACKS),
    "bomb of shards": Hostile(
        lambda: zipped([(f"{i}.tar", tarred([("a.npy", bytes(900_000))])) for i in range(6)], zipfile.ZIP_DEFLATED), UNPACKS
    ),
    "many members in shards": Hostile(
        lambda: zipped([(f"{i}.tar", tarred([(f"{j}/x.md", b"") for j in range(50)])) for i in range(5)]), "members; split"
    ),
    "shard in a shard": Hostile(lambda: zipped([("0.tar", tarred([("1.tar", TAR), ("horse/1.png", PNG)]))]), NO_IMAGE),
    "link in a shard": Hostile(lambda: zipped([("0.tar", special(b"2")())]), LINK),
    "shard that leaves": Hostile(lambda: zipped([("0.tar", tarred([("../1.png", PNG)]))]), OUTSIDE),
    "zip called a shard": Hostile(lambda: zipped([("0.tar", zipped([("horse/1.png", PNG)]))]), "pack it as a tar"),
    "shard that is none": Hostile(lambda: zipped([("0.tar", b"none")]), BROKEN),
    # What decoders are asked for.
    "TIFF with a tile of a gigabyte": Hostile(member(tile_bomb(), "2.tif"), "tiles of 32768 x 32768"),
    "TIFF of five thousand tags": Hostile(member(many_tags(), "2.tif"), "thousands of tags"),
    "JPEG of two hundred scans": Hostile(member(scans(200), "2.jpg"), "more than 100 scans"),
    "JPEG of three thousand segments": Hostile(member(segments(3000), "2.jpg"), "thousands of parts"),
    "JPEG with EXIF in pieces": Hostile(member(segments(20, 0xE1, b"Exif\0\0" + bytes(99)), "2.jpg"), "thousands of parts"),
    "JPEG with junk between its parts": Hostile(member(junk_in_jpeg(), "2.jpg"), "mean nothing"),
    "PNG of a hundred thousand chunks": Hostile(member(png_with(chunk(b"abCd", b"") * 100_000)), PARTS),
    "PNG with a text of 200 MB": Hostile(member(text_bomb()), UNREADABLE),
    "PNG of two billion frames": Hostile(member(frames()), "animation of"),
    "GIF with a comment in pieces": Hostile(member(gif_comment(), "2.gif"), PARTS),
    "WebP of the largest canvas": Hostile(member(webp_canvas(), "2.webp"), "pixels"),
    "float image without numbers": Hostile(lambda: zipped([("horse/1.tif", nan_tiff())]), "no numbers"),
    # What is no image.
    "HTML as an image": Hostile(member(html(), "2.jpg"), "is HTML, not an image"),
    "HEIC that is cut off": Hostile(member(b"\0\0\0\x18ftypheic" + bytes(16), "2.jpg"), UNREADABLE),
    "AVIF that is cut off": Hostile(member(encoded("AVIF")[:100], "2.avif"), UNREADABLE),
    "film as an image": Hostile(member(b"\0\0\0\x18ftypmp42" + bytes(40), "2.jpg"), "is a film, not an image"),
    "JPEG XL by its suffix": Hostile(member(b"\xff\x0a", "2.jxl"), "taken are JPEG, PNG"),
    "nothing as an image, and junk beside it": Hostile(
        lambda: zipped([("horse/1.png", b""), ("__MACOSX/horse/._1.png", b"x")]), "is empty"
    ),
    # Labels.
    "label of 16 MiB": Hostile(lambda: gzip.compress(shard(b"[" + b"[]," * 5_000_000 + b"[]]", "json")()), UNPACKS),
    "label of 70 kB": Hostile(shard(b'{"label": "' + b"x" * 70_000 + b'"}', "json"), "more than 65536 bytes"),
    "label that is null": Hostile(shard(label(None), "json"), "label that is null"),
    "label that is a list": Hostile(shard(label(["horse"]), "json"), "label that is a list"),
    "label that is true": Hostile(shard(label(True), "json"), "label that is true or false"),
    "label that is a fraction": Hostile(shard(label(3.0), "json"), "label that is a fraction"),
    "label that is an object": Hostile(shard(label({"name": "horse"}), "json"), "label that is an object"),
    "label below zero": Hostile(shard(b"-1", "cls", ("classnames.txt", b"horse")), "count classes from 0"),
    "label below zero in JSON": Hostile(shard(label(-1), "json"), "count classes from 0"),
    "label of a googol": Hostile(shard(b'{"label": 1' + b"0" * 100 + b"}", "json", ("classnames.txt", b"horse")), "lines"),
    "two labels in two cases": Hostile(shard(b"horse", "cls", ("0.CLS", b"cow")), "case alone"),
    "two images of one place in a sample": Hostile(shard(b"horse", "cls", ("./0.png", PNG)), TWICE),
    # Tables.
    "table that gives an image two classes": Hostile(lambda: flat(b"id,label\n1,cat\n1,dog\n2,dog\n"), "two classes"),
    "two tables that disagree": Hostile(
        lambda: zipped([("1.png", PNG), ("a.csv", b"id,label\n1,cat\n"), ("b.csv", b"id,label\n1,dog\n")]), "another table"
    ),
    "table that leaves an image out": Hostile(lambda: flat(b"id,label\n1,cat\n"), "has no label in 'labels.csv'"),
    "table without a column of classes": Hostile(lambda: flat(b"id,x,y1\n1,2,3\n2,3,4\n"), "is the class is not clear"),
    "table that is no text": Hostile(lambda: flat(b"id,label\n1,\xff\xfe\n"), "cannot be read as a table"),
    "table of deep JSON": Hostile(lambda: flat(b"[" * 60_000, "metadata.jsonl"), "cannot be read as a table"),
    "table of lists": Hostile(lambda: flat(b"[1, 2]\n", "metadata.jsonl"), "each line must be an object"),
    "table of two thousand columns": Hostile(lambda: flat(b"a," * 2000 + b"\n1,cat\n"), "columns"),
    "table and folders that disagree": Hostile(
        lambda: zipped([("cat/1.png", PNG), ("dog/2.png", PNG), ("x.csv", b"id,label\n1,cat\n2,cat\n")]), "by its folder"
    ),
    # Parquet.
    "Parquet of nothing": Hostile(parquet_of_nothing, "cannot be read as a Parquet file"),
    "Parquet of nothing in a zip": Hostile(lambda: zipped([("a.parquet", parquet_of_nothing())]), "as a Parquet file"),
    "Parquet that is none": Hostile(lambda: zipped([("a.parquet", b"none")]), "as a Parquet file"),
}  # fmt: skip


def nan_tiff() -> bytes:
    """Return a float TIFF that holds no number."""
    import numpy as np
    from PIL import Image

    return encoded("TIFF", Image.fromarray(np.full((8, 8), np.nan, np.float32)))


ALL: dict[str, Hostile] = ARCHIVES | SETS
