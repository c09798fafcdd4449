"""Addresses of servers as people may see them."""

from __future__ import annotations

import re


def without_login(text: str) -> str:
    """An address, or a text with one, without user name and password, which may hold any character but a space.

    The path of an SQLite file stays as it is.
    """
    return text if text.startswith("sqlite:") else re.sub(r"//\S*@", "//", text)
