"""How this process gets its memory."""

from __future__ import annotations

import os

HUGE_PAGES_VARIABLE = "THP_MEM_ALLOC_ENABLE"
"""PyTorch looks at it when it first needs memory."""


def use_huge_pages() -> None:
    """Let PyTorch ask the system for large pages, unless the user has decided otherwise.

    An image of 4096 x 4096 pixels is 16,384 pages of 4 KB, which the system hands out and clears one by one, or 32 of
    2 MB: simple arithmetic on large images then takes a third of the time. To be called by commands, before the first
    tensor is made; results are the same.
    """
    os.environ.setdefault(HUGE_PAGES_VARIABLE, "1")
