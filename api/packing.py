"""What is uploaded as a data set: a file as it is, or a folder, packed as a tar while it is
sent. No second copy is made.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shared.errors import InvalidRequest

CHUNK_BYTES = 1024 * 1024
END_BYTES = 2 * tarfile.BLOCKSIZE


@dataclass(frozen=True, slots=True)
class Body:
    """Bytes to be sent, of a known number: the same files always give the same bytes."""

    name: str
    size: int
    files: tuple[tuple[bytes, Path, int], ...]
    """(bytes that come before it, file, its size)."""
    end: bytes = b""

    @classmethod
    def of(cls, path: Path) -> "Body":
        """Return a file, or what lies in a folder: links followed, hidden files and folders left
        out.

        Raises:
            InvalidRequest: the folder holds nothing.
        """
        if not path.is_dir():
            size = path.stat().st_size
            return cls(path.name, size, ((b"", path, size),))
        names = (file.relative_to(path) for file in path.rglob("*") if file.is_file())
        visible = sorted(
            name for name in names if not any(part.startswith(".") for part in name.parts)
        )
        if not visible:
            raise InvalidRequest.at("", f"there is nothing to upload in {path}")
        files = []
        size, padding = 0, 0
        for name in visible:
            info = tarfile.TarInfo(name.as_posix())
            info.size = (path / name).stat().st_size
            head = bytes(padding) + info.tobuf(tarfile.PAX_FORMAT)
            files.append((head, path / name, info.size))
            size, padding = size + len(head) + info.size, -info.size % tarfile.BLOCKSIZE
        end = bytes(padding + END_BYTES)
        return cls(f"{path.resolve().name}.tar", size + len(end), tuple(files), end)

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes.

        Raises:
            InvalidRequest: a file has changed its size since.
        """
        for head, file, size in self.files:
            yield head
            left = size
            with file.open("rb") as source:
                while chunk := source.read(min(CHUNK_BYTES, left + 1)):
                    left -= len(chunk)
                    if left < 0:
                        break
                    yield chunk
            if left != 0:
                raise InvalidRequest.at("", f"{file} changed while it was sent; send it again")
        yield self.end
