"""Check a Bundle against its own manifest, file by file."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from edgemamba.board import bundle_files
from edgemamba.errors import InputError
from edgemamba.records import FileEntry, Manifest, load_record

SUMS = "SHA256SUMS"
MANIFEST = "manifest.json"
# What the board scripts write where they are started, which may be the Bundle itself.
OUTPUTS = ("agent.jsonl", "predictions")


def check(folder: Path) -> Manifest:
    """Compare a Bundle with its manifest.

    Returns:
        the manifest.

    Raises:
        InputError: not a Bundle, or damaged. The message names every file that is missing, changed, not
            listed, a symbolic link, or so named that it leaves the folder or collides with another.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder", hint="give the folder that export wrote")
    if not (folder / MANIFEST).is_file():
        raise InputError(f"{folder} is not a Bundle: no {MANIFEST} there", hint="give the folder that export wrote")
    manifest = load_record(folder / MANIFEST, Manifest)
    faults = faults_of(folder, manifest)
    if faults:
        raise InputError(f"{folder} is damaged: {'; '.join(faults)}", hint="export it or copy it again")
    return manifest


def faults_of(folder: Path, manifest: Manifest) -> list[str]:
    """Every way in which the folder differs from its manifest, one line each, in a stable order."""
    listed = [entry.path for entry in manifest.files]
    faults = _name_faults(listed)
    safe = [entry for entry in manifest.files if not bundle_files.unsafe_name(entry.path)]
    faults += [bundle_files.file_fault(folder, entry.model_dump()) for entry in safe]
    used = {manifest.artifact, manifest.golden.file}
    faults += [f"{name} is used but not listed" for name in sorted(used - set(listed))]
    present = _walk(folder)
    faults += [f"{name} is a symbolic link" for name, link in present if link and name not in listed]
    known = {*listed, MANIFEST, SUMS}
    for name, link in present:
        if not link and name not in known and name.split("/")[0] not in OUTPUTS:
            faults.append(f"{name} is not listed")
    sums = folder / SUMS
    if not sums.is_file():
        faults.append(f"{SUMS} is missing")
    elif sums.read_bytes() != sums_text(folder, manifest.files).encode():
        faults.append(f"{SUMS} does not agree with {MANIFEST}")
    return [fault for fault in faults if fault]


def sums_text(folder: Path, files: Iterable[FileEntry]) -> str:
    """``SHA256SUMS`` for ``sha256sum -c``: every listed file and the manifest."""
    sums = {entry.path: entry.sha256 for entry in files}
    sums[MANIFEST] = bundle_files.hash_file(folder / MANIFEST)
    return "".join(f"{sums[name]}  {name}\n" for name in sorted(sums))


def _name_faults(names: list[str]) -> list[str]:
    faults = []
    for name in names:
        reason = bundle_files.unsafe_name(name)
        if reason:
            faults.append(f"{name!r} {reason}")
        if name in (MANIFEST, SUMS):
            faults.append(f"{name} lists itself")
    faults += [f"{name} is listed {count} times" for name, count in Counter(names).items() if count > 1]
    by_case: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        by_case.setdefault(name.casefold(), []).append(name)
    faults += [f"{' and '.join(same)} differ only in case" for same in by_case.values() if len(same) > 1]
    return faults


def _walk(folder: Path) -> list[tuple[str, bool]]:
    """(path below ``folder``, whether a symbolic link) of every file and link, sorted; links not followed."""
    found = []
    for base, folders, files in os.walk(folder):
        for name in files + folders:
            path = Path(base, name)
            if name in files or path.is_symlink():
                found.append((path.relative_to(folder).as_posix(), path.is_symlink()))
    return sorted(found)
