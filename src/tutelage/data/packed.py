"""Compressed files, of which a few kilobytes can stand for all memory: read up to a limit."""

import io
import zipfile
import zlib

from tutelage.errors import DataProblem

GZIP = b"\x1f\x8b"  # how such a file begins
SMALL = 2**26  # bytes that may come out of any file
MOST_TIMES = 200  # a file's own size, for what is larger; text shrinks to a tenth


def unzipped(data: bytes) -> bytes:
    """The content of a gzip file; raises DataProblem where it is broken, or far too large."""
    most = max(SMALL, MOST_TIMES * len(data))
    done, rest = bytearray(), data
    try:
        while rest.strip(b"\0"):  # several files one behind the other are one
            one = zlib.decompressobj(wbits=31)
            done += one.decompress(rest, most + 1 - len(done))
            if len(done) > most:
                raise DataProblem(
                    f"is {len(data):,} bytes and unpacks to more than {most:,}: no data does"
                )
            if not one.eof:
                raise DataProblem("is a broken gzip file: it ends too early")
            rest = one.unused_data
    except zlib.error as error:
        raise DataProblem(f"is a broken gzip file: {error}") from error
    return bytes(done)


def refuse_bombs(data: bytes) -> None:
    """Raises DataProblem where a zip's content is far larger than the zip; BadZipFile if broken."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        total = sum(member.file_size for member in file.infolist())
    if total > max(SMALL, MOST_TIMES * len(data)):
        raise DataProblem(f"is {len(data):,} bytes and unpacks to {total:,}: no data does")
