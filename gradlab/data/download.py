"""Published files, downloaded once into the user's cache and checked against their sums."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gradlab.data.dataset import DataError

if TYPE_CHECKING:
    import requests

TIMEOUT = 30.0
"""Seconds without an answer, or between two pieces of one, after which a download is given up."""

LIMIT = 1800.0
"""Seconds after which a file that still drips in is given up."""

CHUNK = 1 << 18
"""Bytes between two looks at the progress and the clock, at most."""

RETRIES = 1
"""Further attempts at a file whose download failed or whose sum was wrong."""


@dataclass(frozen=True)
class Source:
    """Where a data set is published: an address, and the MD5 sum of each file there."""

    name: str
    address: str
    md5: Mapping[str, str]


def fetch(
    source: Source,
    mirror: str | None = None,
    cache: Path | None = None,
    *,
    retries: int = RETRIES,
    timeout: float = TIMEOUT,
    limit: float = LIMIT,
) -> Path:
    """The folder that holds every file of ``source``, each with the right sum; what is missing or broken is downloaded.

    Files come from ``mirror`` where one is given, else from the published address, and are kept in ``cache`` (by
    default the user's, one folder a data set). A file is written under another name and renamed when its sum is
    right, so processes may fetch the same files at the same time and none reads half of one.
    Raises `DataError` that names the file, the address, the reason and the way out.
    """
    import pooch
    import requests

    folder = (cache if cache is not None else Path(pooch.os_cache("gradlab"))) / source.name
    address = f"{(mirror or source.address).rstrip('/')}/"
    catalogue = pooch.create(
        folder,
        base_url=address,
        registry={file: f"md5:{digest}" for file, digest in source.md5.items()},
        retry_if_failed=retries,
    )
    # pooch announces each download on standard error, terminal or not; `_show` tells it where someone looks.
    pooch.get_logger().setLevel(logging.WARNING)
    for file in source.md5:
        try:
            catalogue.fetch(file, downloader=partial(_download, timeout=timeout, limit=limit))
        except requests.RequestException as error:
            raise _refusal(source, address, file, _reason(error, timeout)) from error
        except ValueError as error:
            raise _refusal(source, address, file, "its MD5 sum is not the published one") from error
        except OSError as error:
            reason = error.strerror or str(error)
            raise DataError(f"data.name={source.name}: cannot keep {file} in {folder}: {reason}") from error
    return folder


def _download(url: str, output: str, _catalogue: object, *, timeout: float, limit: float) -> None:
    """Writes what ``url`` answers to the file ``output``; pooch calls this, and checks and renames the file afterwards.

    Unlike pooch's own downloader it closes the connection when the download fails, and shows its progress without tqdm.
    """
    import requests

    begun = time.monotonic()
    # A server that unpacks .gz on the way would spoil the sum, so the bytes are asked for as they are.
    headers = {"Accept-Encoding": "identity"}
    with requests.get(url, headers=headers, stream=True, timeout=timeout) as answer, Path(output).open("wb") as file:
        answer.raise_for_status()
        size, arrived = int(answer.headers.get("Content-Length", 0)), 0
        for piece in _pieces(answer):
            arrived += file.write(piece)
            _show(url.rpartition("/")[2], arrived, size)
            if time.monotonic() - begun > limit:
                raise requests.RequestException(f"{arrived} bytes in {limit:g} s, and it is not whole")


def _pieces(answer: requests.Response) -> Iterator[bytes]:
    """What has arrived, as it arrives: `requests` itself waits until a whole chunk is there, however slow it is."""
    import requests
    import urllib3

    try:
        while piece := answer.raw.read1(CHUNK, decode_content=False):
            yield piece
    except urllib3.exceptions.ProtocolError as error:
        raise requests.exceptions.ChunkedEncodingError(error) from error
    except urllib3.exceptions.ReadTimeoutError as error:
        raise requests.ConnectionError(error) from error


def _show(name: str, arrived: int, size: int) -> None:
    """The share of a file that has arrived, on one line of the terminal, and nothing where there is no terminal."""
    if not sys.stderr.isatty():
        return
    share = f"{arrived / size:.0%}" if size else f"{arrived / 1e6:.1f} MB"
    # Whatever is written next, an error's message too, takes the place of an unfinished line.
    sys.stderr.write(f"downloading {name} {share}" + ("\n" if arrived == size else "\r"))
    sys.stderr.flush()


def _refusal(source: Source, address: str, file: str, reason: str) -> DataError:
    return DataError(
        f"data.name={source.name}: cannot download {address}{file}: {reason}; try again, or give another address "
        "(data.mirror=URL) or a folder that holds the files (data.root=DIR)"
    )


def _reason(error: requests.RequestException, timeout: float) -> str:
    """What the exception comes to, in words: its own text is a chain of object names."""
    import requests

    if error.response is not None:
        return f"the server answers {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.Timeout):
        return f"no answer within {timeout:g} s"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection was cut"
    if isinstance(error, requests.ConnectionError):
        return "no connection, or it fell silent"
    return str(error)
