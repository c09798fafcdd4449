"""Texts' hidden states below the layers that learn, kept in memory or on disk.

They depend on the frozen layers and the text's tokens alone, so that every epoch uses them, and so does every later
run with the same frozen layers; new items are added. On disk:

    <folder>/<key>/<segment>.safetensors    states (T, E), lengths (n,), digests (n, 16); checksum in the metadata

The key is a hash of the frozen layers, with precision and device; a segment's name is a hash of its texts.

Segments are memory-mapped, complete or not there at all, and never changed. Runs may share a folder: what two of
them write at once is written twice, what one of them deletes stays readable for the others that use it.

Shapes: T tokens of n texts, E the encoder's width.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import os
import time
import zlib
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from mtrec.data.contract import replacing_file

log = logging.getLogger(__name__)

SEGMENT_BYTES = 64 * 2**20
"""States are written when so many have come together, and at the end."""
_ABANDONED = 24 * 3600
"""Seconds after which a half-written file counts as left by a run that was killed."""


def digest(tokens: Sequence[int]) -> bytes:
    """The name of a text: a hash of its token ids."""
    return hashlib.blake2b(np.asarray(tokens, dtype=np.int64).tobytes(), digest_size=16).digest()


class StateCache:
    """States of texts by digest.

    Args:
        folder: where they are kept for later runs; None keeps them in memory only.
        max_bytes: bound on the states held, and on the folder, where what was used least recently gives way.
    """

    def __init__(self, folder: Path | None, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        self.key = ""
        self._start()

    def _start(self) -> None:
        self.states: dict[bytes, Tensor] = {}
        self.num_bytes = 0
        """Of the states held, with those of other texts in the same segments."""
        self.num_read = 0
        """Texts whose states an earlier run had left on disk."""
        self.refused: set[bytes] = set()
        """Texts for which there was no room."""
        self._said = False
        self._used: set[Path] = set()
        self._waiting: list[tuple[list[bytes], Tensor]] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> StateCache:
        """A cache of its own that holds the same states: they never change."""
        copied = StateCache(self.folder, self.max_bytes)
        vars(copied).update({name: copy.copy(value) for name, value in vars(self).items()})
        return copied

    def open(self, key: str) -> None:
        """Take up the states of some frozen layers; those of others are let go."""
        if key != self.key:
            self.key = key
            self._start()

    def load(self, wanted: Collection[bytes]) -> None:
        """Read the segments that hold any of these texts and are not in use yet. Damaged ones are deleted."""
        missing = set(wanted) - self.states.keys()
        if self.folder is None or not missing:
            return
        for path in sorted((self.folder / self.key).glob("*.safetensors")):
            if path in self._used:
                continue
            try:
                found, states = _read_segment(path, missing)
            except FileNotFoundError:  # another run has made room
                continue
            except OSError as error:
                log.warning("%s: cannot be read (%s); computed anew", path, _line(error))
                continue
            except Exception as error:  # safetensors, torch and the system each raise their own
                log.warning("%s: damaged (%s); computed anew", path, _line(error))
                with suppress(OSError):
                    path.unlink(missing_ok=True)
                continue
            if states is not None and self.num_bytes + states.nbytes <= self.max_bytes:
                self._used.add(path)
                self.num_read += len(missing & found.keys())
                self._hold(found, states)
                missing -= found.keys()
                with suppress(OSError):
                    os.utime(path)

    def get(self, name: bytes) -> Tensor | None:
        """States of a text, (its tokens, E), on the CPU."""
        return self.states.get(name)

    def put(self, names: Sequence[bytes], lengths: Sequence[int], states_TE: Tensor) -> None:
        """Keep the states of texts, one after the other in `states_TE`, as far as there is room."""
        room = (self.max_bytes - self.num_bytes) // (states_TE[:1].nbytes or 1)
        ends = np.cumsum(lengths)
        fitting = int(np.searchsorted(ends, room, side="right"))
        self.refused.update(names[fitting:])
        if not fitting:
            return
        kept, states = list(names[:fitting]), states_TE[: int(ends[fitting - 1])].cpu().contiguous()
        self._hold(dict(zip(kept, lengths[:fitting], strict=True)), states)
        if self.folder is not None:
            self._waiting.append((kept, states))
            if sum(s.nbytes for _, s in self._waiting) >= SEGMENT_BYTES:
                self.flush()

    def flush(self) -> None:
        """Write what is not on disk yet, and use it from there. Where that fails it stays in memory."""
        if self.refused and not self._said:
            self._said = True
            log.warning(
                "training.cache_mb: %d MB have room for %d texts; %d more run through all layers every time",
                self.max_bytes // 2**20,
                len(self.states),
                len(self.refused),
            )
        waiting, self._waiting = self._waiting, []
        if self.folder is None or not waiting:
            return
        names = [name for some, _ in waiting for name in some]
        lengths = [len(self.states[name]) for name in names]
        states = torch.cat([states for _, states in waiting])
        path = self.folder / self.key / f"{hashlib.sha256(b''.join(names)).hexdigest()[:32]}.safetensors"
        tensors = {
            "states": states,
            "lengths": torch.tensor(lengths),
            "digests": torch.frombuffer(bytearray(b"".join(names)), dtype=torch.uint8).view(len(names), -1),
        }
        try:
            self._make_room(states.nbytes)
            with replacing_file(path) as temporary:
                save_file(tensors, temporary, {"checksum": _checksum(tensors)})
                temporary.chmod(0o644)  # the runs that share a folder may be of several users
            _, mapped = _read_segment(path, set(names))
        except Exception as error:  # a full disk, a folder that cannot be written
            log.warning("%s: cannot be written (%s); kept in memory", path, _line(error))
            return
        if mapped is not None:
            self._used.add(path)
            self.states.update(zip(names, mapped.split(lengths), strict=True))

    def summary(self) -> dict[str, Any]:
        """For people: how many texts it holds, how many of them an earlier run had left, and what found no room."""
        return {
            "texts": len(self.states),
            "from_earlier_runs": self.num_read,
            "without_room": len(self.refused),
            "mb": round(self.num_bytes / 2**20, 1),
        }

    def _hold(self, lengths: dict[bytes, int], states_TE: Tensor) -> None:
        self.num_bytes += states_TE.nbytes
        for name, states in zip(lengths, states_TE.split(list(lengths.values())), strict=True):
            self.states.setdefault(name, states)

    def _make_room(self, size: int) -> None:
        """Delete half-written files of killed runs and, oldest first, segments that this run does not use."""
        assert self.folder is not None
        kept: list[tuple[float, int, Path]] = []
        for path in self.folder.glob("*/*"):
            with suppress(OSError):
                stat = path.stat()
                if path.suffix == ".safetensors":
                    kept.append((stat.st_mtime, stat.st_size, path))
                elif path.suffix == ".tmp" and time.time() - stat.st_mtime > _ABANDONED:
                    path.unlink(missing_ok=True)
        excess = sum(bytes_ for _, bytes_, _ in kept) + size - self.max_bytes
        for _, bytes_, path in sorted(kept):
            if excess <= 0:
                return
            if path not in self._used:
                with suppress(OSError):
                    path.unlink(missing_ok=True)
                    excess -= bytes_


def _read_segment(path: Path, wanted: set[bytes]) -> tuple[dict[bytes, int], Tensor | None]:
    """Lengths of the texts in a segment by digest, and their states, memory-mapped; None when none is wanted.

    Raises:
        Exception: of whatever kind, when the file is damaged.
    """
    with safe_open(path, "pt") as file:
        names = [row.tobytes() for row in file.get_tensor("digests").numpy()]
        found = dict(zip(names, file.get_tensor("lengths").tolist(), strict=True))
        if not wanted & found.keys():
            return found, None
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if _checksum(tensors) != file.metadata()["checksum"]:
            raise ValueError("its checksum is wrong")
        return found, tensors["states"]


def _checksum(tensors: dict[str, Tensor]) -> str:
    checksum = 0
    for name in sorted(tensors):
        checksum = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, checksum)
    return f"{checksum:08x}"


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
