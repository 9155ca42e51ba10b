"""Recognises Git LFS pointers: the small text files that stand for files not downloaded."""

from __future__ import annotations

import re

SPECIFICATION = b"version https://git-lfs.github.com/spec/"
LFS_BYTES = 1024  # a pointer is smaller


def lfs_fault(head: bytes) -> str | None:
    """Describe the pointer that a file's first bytes are, with the remedy; None if they are not."""
    if not head.startswith(SPECIFICATION):
        return None
    size = re.search(rb"^size (\d{1,18})$", head, re.MULTILINE)
    of = f" to {int(size[1]):,} bytes" if size else ""
    return f"a Git LFS pointer{of}, not the content: run `git lfs pull` in its repository"
