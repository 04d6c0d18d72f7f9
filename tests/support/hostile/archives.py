"""Hostile archives of images, each for one hole that readers of archives are known for."""

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable

from PIL import Image

from tests.support.hostile import LIMITS, Hostile
from tests.support.requests import png

PNG = png(7)
Entries = list[tuple[str, bytes]]


def zipped(entries: Entries, method: int = zipfile.ZIP_STORED) -> bytes:
    """Return a zip."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in entries:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return out.getvalue()


def tarred(entries: Entries, **changes: object) -> bytes:
    """Return a tar; `changes` are made to the header of every member."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for field, value in changes.items():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def both(name: str) -> Callable[[], bytes]:
    """Return a builder of a tar with one image of this name."""
    return lambda: tarred([("horse/1.png", PNG), (name, PNG)])


def in_zip(*entries: tuple[str, bytes]) -> Callable[[], bytes]:
    """Return a builder of a zip with a sound image and these members."""
    return lambda: zipped([("horse/1.png", PNG), *entries])


def special(kind: bytes) -> Callable[[], bytes]:
    """Return a builder of a tar with a member of a special type."""
    return lambda: tarred([("horse/1.png", b"")], type=kind, linkname="/etc/passwd")


def patched(content: bytes, signature: bytes, offset: int, value: bytes) -> bytes:
    """Overwrite bytes in the first header that begins with a signature."""
    at = content.index(signature) + offset
    return content[:at] + value + content[at + len(value) :]


LOCAL, CENTRAL = b"PK\x03\x04", b"PK\x01\x02"


def one(method: int = zipfile.ZIP_STORED) -> bytes:
    """Return a zip of one image."""
    return zipped([("horse/1.png", PNG)], method)


def zip_symlink() -> bytes:
    """Return a zip whose member says that it is a link."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        info = zipfile.ZipInfo("horse/1.png")
        info.create_system, info.external_attr = 3, 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    return out.getvalue()


def overlapping() -> bytes:
    """Return a zip whose directory gives one member many names, so that its bytes count many times."""
    single = zipped([("horse/0.png", PNG)], zipfile.ZIP_DEFLATED)
    start = single.index(CENTRAL)
    entry = single[start : single.index(b"PK\x05\x06")]
    entries = b"".join(entry.replace(b"horse/0.png", f"horse/{i:x}.png".encode()) for i in range(16))
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 16, 16, len(entries), start, 0)
    return single[:start] + entries + end


def raw_header(name: bytes, size: bytes, kind: bytes = b"0") -> bytes:
    """Return a tar header with a size field as given."""
    header = bytearray(512)
    header[: len(name)] = name
    header[100:108], header[108:116], header[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    header[124:136] = size.ljust(12, b"\0")
    header[136:148] = b"00000000000\0"
    header[148:156] = b" " * 8
    header[156:157] = kind
    header[257:265] = b"ustar\x0000"
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header)


def octal(size: int) -> bytes:
    """Return a size as tar headers write it."""
    return f"{size:011o}\0".encode()


def padded(content: bytes) -> bytes:
    """Fill the last block of a tar member."""
    return content + bytes(-len(content) % 512)


def pax(fields: bytes) -> bytes:
    """Return an extended header with these bytes in it, and a member behind it."""
    return raw_header(b"pax", octal(len(fields)), b"x") + padded(fields) + tarred([("horse/1.png", PNG)])


def record(key: str, value: str) -> bytes:
    """Return one field of an extended header."""
    text = f" {key}={value}\n"
    length = len(text) + len(str(len(text) + 3))
    return f"{length}{text}".encode()


def sparse_old() -> bytes:
    """Return a member of GNU's old sparse type: a megabyte that takes no byte."""
    return raw_header(b"horse/1.png", octal(0), b"S") + bytes(1024)


def sparse_new() -> bytes:
    """Return a member whose map of holes (GNU sparse 1.0) is no map."""
    marks = record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0") + record("GNU.sparse.realsize", "9")
    return raw_header(b"pax", octal(len(marks)), b"x") + padded(marks) + tarred([("horse/1.png", b"x" * 600)])


def bomb(pack: Callable[[bytes], bytes]) -> Callable[[], bytes]:
    """Return a builder of a packed tar that unpacks to far more than it has."""
    return lambda: pack(tarred([("notes.md", bytes(6_000_000))]))


def image_header(width: int, height: int) -> bytes:
    """Return a PNG that claims a size and holds next to nothing."""
    head = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(bytes(64))), (b"IEND", b"")]
    packed = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def photo() -> bytes:
    """Return a JPEG of more than a thousand bytes."""
    out = io.BytesIO()
    Image.effect_noise((64, 64), 80).save(out, "JPEG")
    return out.getvalue()


def bmp(width: int, height: int) -> bytes:
    """Return a bitmap of a claimed size without a pixel."""
    info = struct.pack("<3i2H6i", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<3i", 54, 0, 54) + info


def shard(label: bytes, suffix: str = "cls", *others: tuple[str, bytes]) -> Callable[[], bytes]:
    """Return a builder of a WebDataset shard with one label."""
    return lambda: tarred([("0.png", PNG), (f"0.{suffix}", label), *others])


def member(content: bytes, name: str = "1.png") -> Callable[[], bytes]:
    """Return a builder of a zip in which one image is not what it should be."""
    return in_zip((f"horse/{name}", content)) if name != "1.png" else lambda: zipped([("horse/1.png", content)])


OUTSIDE, LINK, SIZE = "would leave the folder", "a link, a device or a sparse file", "another size than its header"
TWICE, UNPACKS, BROKEN = "comes twice", "unpacks to more than", "cannot be read as a zip or tar"
UNREADABLE, NO_IMAGE, PRINT = "not an image that can be decoded", "is not an image; take it out", "cannot be printed"

ARCHIVES: dict[str, Hostile] = {
    # Paths that leave, or that no file system takes.
    "absolute path in a zip": Hostile(in_zip(("/etc/cron.d/x.png", PNG)), OUTSIDE),
    "absolute path in a tar": Hostile(both("/etc/cron.d/x.png"), OUTSIDE),
    "parent folder in a zip": Hostile(in_zip(("../x.png", PNG)), OUTSIDE),
    "parent folder in a tar": Hostile(both("../x.png"), OUTSIDE),
    "parent folder further in": Hostile(in_zip(("horse/../../x.png", PNG)), OUTSIDE),
    "parent folder as a folder": Hostile(in_zip(("../../evil/", b"")), OUTSIDE),
    "drive letter": Hostile(in_zip(("C:/horse/x.png", PNG)), OUTSIDE),
    "drive letter without a slash": Hostile(both("C:x.png"), OUTSIDE),
    "backslashes": Hostile(in_zip(("..\\..\\x.png", PNG)), OUTSIDE),
    "network share": Hostile(both("//server/share/x.png"), OUTSIDE),
    "NUL in a name": Hostile(lambda: in_zip(("horse/2.png_.sh", PNG))().replace(b"png_", b"png\0"), PRINT),
    "line break in a name": Hostile(in_zip(("horse/2\n.png", PNG)), PRINT),
    "terminal escape in a name": Hostile(both("horse/\x1b[2J.png"), PRINT),
    "right-to-left override in a name": Hostile(in_zip(("horse/\u202egnp.exe.png", PNG)), PRINT),
    "zero-width space in a name": Hostile(both("horse/\u200b1.png"), PRINT),
    "name that is no text": Hostile(lambda: raw_header(b"horse/\xff\xfe.png", octal(0)), PRINT),
    "zip name that is no UTF-8": Hostile(lambda: in_zip(("é/x.png", PNG))().replace("é".encode(), b"\xff\xfe"), BROKEN),
    "part of 300 bytes": Hostile(in_zip(("horse/" + "x" * 300 + ".png", PNG)), "name of more than 255"),
    "path of 2000 bytes": Hostile(in_zip(("/".join(["x" * 199] * 10) + "/1.png", PNG)), "path of more than 1024"),
    "path of 70,000 bytes": Hostile(both("horse/" + "x" * 70_000 + ".png"), "path of more than 1024"),
    "forty folders deep": Hostile(both("a/" * 40 + "1.png"), "folders deep"),
    # What is no file.
    "symbolic link in a tar": Hostile(special(tarfile.SYMTYPE), LINK),
    "hard link in a tar": Hostile(special(tarfile.LNKTYPE), LINK),
    "character device": Hostile(special(tarfile.CHRTYPE), LINK),
    "block device": Hostile(special(tarfile.BLKTYPE), LINK),
    "named pipe": Hostile(special(tarfile.FIFOTYPE), LINK),
    "unknown type": Hostile(special(b"Z"), LINK),
    "symbolic link in a zip": Hostile(zip_symlink, LINK),
    "sparse member, old": Hostile(sparse_old, LINK),
    "sparse member, new, with a broken map": Hostile(sparse_new, BROKEN),
    # Two for one place.
    "name twice in a zip": Hostile(lambda: in_zip(("horse/2.png", PNG))().replace(b"/2.png", b"/1.png"), TWICE),
    "name twice in a tar": Hostile(both("horse/1.png"), TWICE),
    "name twice in two normal forms": Hostile(
        in_zip(("caf\u00e9/1.png", PNG), ("cafe\u0301/1.png", PNG)), TWICE
    ),
    "file that is a folder, too": Hostile(in_zip(("horse/1.png/2.png", PNG)), "file and a folder at once"),
    "folder that is a file, too": Hostile(in_zip(("a.png/2.png", PNG), ("a.png", PNG)), "file and a folder at once"),
    # Headers that lie.
    "local header of another name": Hostile(lambda: patched(one(), LOCAL, 30, b"mouse"), BROKEN),
    "local header outside of the file": Hostile(lambda: patched(one(), CENTRAL, 42, b"\xff\xff\xff\x7f"), BROKEN),
    "local header without its mark": Hostile(lambda: patched(one(), LOCAL, 0, b"XXXX"), BROKEN),
    "directory outside of the file": Hostile(lambda: patched(one(), b"PK\x05\x06", 16, b"\xff\xff\xff\x7f"), BROKEN),
    "directory of more entries than there are": Hostile(
        lambda: patched(one(), b"PK\x05\x06", 12, b"\xff\xff\x00\x00"), BROKEN
    ),
    "larger than its header says": Hostile(lambda: patched(one(), CENTRAL, 24, b"\x05\0\0\0"), BROKEN),
    "smaller than its header says": Hostile(
        lambda: patched(one(zipfile.ZIP_DEFLATED), CENTRAL, 24, struct.pack("<I", 5000)), SIZE
    ),
    "wrong checksum": Hostile(lambda: patched(one(), CENTRAL, 16, b"\0\0\0\0"), BROKEN),
    "encrypted": Hostile(lambda: patched(one(), CENTRAL, 8, b"\x01\0"), "is encrypted"),
    "strongly encrypted": Hostile(lambda: patched(one(), CENTRAL, 8, b"\x41\0"), "is encrypted"),
    "packed by bzip2 in a zip": Hostile(lambda: one(zipfile.ZIP_BZIP2), "another method than deflate"),
    "packed by LZMA in a zip": Hostile(lambda: one(zipfile.ZIP_LZMA), "another method than deflate"),
    "packed by an unknown method": Hostile(lambda: patched(one(), CENTRAL, 10, b"\x63\0"), "another method than deflate"),
    "negative size": Hostile(lambda: raw_header(b"horse/1.png", b"\xff" * 12), UNPACKS),
    "size that is no number": Hostile(lambda: raw_header(b"horse/1.png", b"elephants"), BROKEN),
    "extended header of 9 GB": Hostile(
        lambda: gzip.compress(raw_header(b"pax", b"\x80" + (9 << 30).to_bytes(11, "big"), b"x")), "a header claims"
    ),
    "long name of negative length": Hostile(lambda: raw_header(b"long", b"\xff" * 11 + b"\0", b"L"), BROKEN),
    "extended header with a negative size": Hostile(lambda: pax(record("size", "-512")), UNPACKS),
    "long names one after another": Hostile(
        lambda: gzip.compress((raw_header(b"long", octal(1), b"L") + bytes(512)) * 3000), BROKEN
    ),
    # Bombs.
    "bomb in a zip": Hostile(
        lambda: zipped([("notes.md", bytes(6_000_000)), ("horse/1.png", PNG)], zipfile.ZIP_DEFLATED), UNPACKS
    ),
    "bomb in gzip": Hostile(bomb(gzip.compress), UNPACKS),
    "bomb in bzip2": Hostile(bomb(bz2.compress), UNPACKS),
    "bomb in xz": Hostile(bomb(lzma.compress), UNPACKS),
    "bomb of one member under many names": Hostile(overlapping, BROKEN),
    "too many images": Hostile(
        lambda: zipped([(f"horse/{i}.png", PNG) for i in range(LIMITS["max_archive_images"] + 1)]), "images; split"
    ),
    "too many folders": Hostile(lambda: zipped([(f"{i}/", b"") for i in range(500)]), "members; split"),
    "archive in an archive": Hostile(lambda: zipped([("horse/more.zip", one())]), NO_IMAGE),
    "script among the images": Hostile(in_zip(("horse/setup.py", b"import os")), NO_IMAGE),
    # Cut off or empty.
    "zip that is cut off": Hostile(lambda: one()[:-30], BROKEN),
    "header in the middle that is damaged": Hostile(
        lambda: both("horse/2.png")().replace(b"2.png", b"3.png"), "damaged after member"
    ),
    "tar that is cut off": Hostile(lambda: tarred([("horse/1.png", PNG * 20)])[:1000], BROKEN),
    "gzip that is cut off": Hostile(lambda: gzip.compress(both("x/2.png")())[:-40], BROKEN),
    "xz with a broken body": Hostile(lambda: lzma.compress(both("x/2.png")())[:60] + bytes(60), BROKEN),
    "nothing packed": Hostile(lambda: zipped([]), "holds no image"),
    "no archive": Hostile(lambda: b"GET / HTTP/1.1\r\n\r\n" * 20, BROKEN),
    "no byte": Hostile(lambda: b"", "is empty"),
    "over the limit": Hostile(lambda: bytes(LIMITS["max_upload_bytes"] + 1), "bytes", field="", status=413),
    # Images.
    "image of a billion pixels": Hostile(member(image_header(40_000, 25_000)), "pixels"),
    "image of 2^31 pixels a side": Hostile(member(image_header(2**31 - 1, 2**31 - 1)), UNREADABLE),
    "image without an area": Hostile(member(image_header(0, 9)), UNREADABLE),
    "image that is a thread": Hostile(member(image_header(1, 900_000)), "one side may be"),
    "bitmap of a claimed size": Hostile(member(bmp(30_000, 30_000), "2.bmp"), "pixels"),
    "image that is cut off": Hostile(member(photo()[:600], "2.jpg"), UNREADABLE),
    "image with a broken body": Hostile(member(png(0)[:50] + bytes(20) + png(0)[70:]), UNREADABLE),
    "text as an image": Hostile(member(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), UNREADABLE),
    "PostScript as an image": Hostile(member(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "2.jpg"), UNREADABLE),
    "empty image": Hostile(member(b""), "is empty"),
    # Labels.
    "class of control characters": Hostile(in_zip(("\x07/1.png", PNG)), PRINT),
    "class of white space": Hostile(in_zip((" /1.png", PNG)), "white space"),
    "class of 150 characters": Hostile(in_zip(("h" * 150 + "/1.png", PNG)), "cannot be a class name"),
    "image beside the classes": Hostile(in_zip(("1.png", PNG)), "beside the class folders"),
    "label nested 60,000 deep": Hostile(shard(b"[" * 60_000, "json"), "cannot be read"),
    "label without its field": Hostile(shard(b'{"name": "horse"}', "json"), "cannot be read"),
    "label that is no text": Hostile(shard(b"\xff\xfe"), "cannot be read"),
    "label of 5000 digits": Hostile(shard(b"9" * 5000, "cls", ("classnames.txt", b"horse\ncow")), "has 2 lines"),
    "label beyond the names": Hostile(shard(b"7", "cls", ("classnames.txt", b"horse\ncow")), "has 2 lines"),
    "label with an override": Hostile(shard("\u202ehorse".encode()), "cannot be a class name"),
    "label of 200 characters": Hostile(shard(b"h" * 200, "txt"), "cannot be a class name"),
    "image without a label": Hostile(shard(b"horse", "cls", ("1.png", PNG)), "has no label"),
    "two images of a sample in two cases": Hostile(shard(b"horse", "cls", ("0.PNG", PNG)), "case alone"),
}  # fmt: skip
