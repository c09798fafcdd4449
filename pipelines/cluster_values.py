"""What the values of a cluster file may be, with words for those that Kubernetes would refuse."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

_UNITS = {
    "": 1,
    **{unit: 1000**power for power, unit in enumerate("kMGTPE", 1)},
    **{f"{unit}i": 1024**power for power, unit in enumerate("KMGTPE", 1)},
}
_LABEL = "[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_PART = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DOMAIN = rf"{_PART}(\.{_PART})*"
_FOLDER = r"[a-z0-9]+((\.|__?|-+)[a-z0-9]+)*"
_REGISTRY = r"(localhost|[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+|[A-Za-z0-9-]+(?=:\d+/))(:\d+)?"
_IMAGE = rf"({_REGISTRY}/)?{_FOLDER}(/{_FOLDER})*(:\w[\w.-]{{0,127}})?(@sha256:[0-9a-f]{{64}})?"
_ENDS = "with a letter or digit first and last"


def _as_text(given: Any) -> Any:
    return str(given) if isinstance(given, int | float) and not isinstance(given, bool) else given


def _in_quotes(given: Any) -> Any:
    if isinstance(given, bool | int | float):
        raise ValueError(f'text is expected: write it in quotes, as "{str(given).lower()}"')
    return given


def _cpu(given: str) -> str:
    if not re.fullmatch(r"\d+(\.\d+)?|\d+m", given, re.ASCII) or not re.search("[1-9]", given):
        raise ValueError("no number of processors: write 2, 0.5 or 500m")
    return given


def _memory(given: str) -> str:
    """An amount of memory as a whole number, which Kubernetes does not ask for and KFP does."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kMGTPE]|[KMGTPE]i)?", given, re.ASCII)
    if found is None:
        meant = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([mgtpe])i?(?:b|byte|bytes)?", given.lower(), re.ASCII)
        hint = f"{meant[1]}{meant[2].upper()} or {meant[1]}{meant[2].upper()}i" if meant else "512Mi or 2Gi"
        raise ValueError(f"no amount of memory: write {hint}")
    size = Decimal(found[1]) * _UNITS[found[2] or ""]
    if size < _UNITS["Mi"]:
        raise ValueError("less than 1Mi: write the amount with its unit, as 512Mi or 2Gi")
    if found[2] != "k" and "." not in found[1]:
        return given
    whole = (f"{size // _UNITS[unit]}{unit}" for unit in ("Gi", "Mi", "Ki", "M") if size % _UNITS[unit] == 0)
    return next(whole, str(math.ceil(size)))


def _spelled(pattern: str, otherwise: str, longest: int = 253) -> Callable[[str], str]:
    """A check of how a text is spelled, which tells in words what is asked."""

    def check(given: str) -> str:
        if not re.fullmatch(pattern, given, re.ASCII):
            raise ValueError(otherwise)
        if len(given) > longest:
            raise ValueError(f"longer than {longest} characters")
        return given

    return check


def _keys(what: str, check: Callable[[str], str]) -> BeforeValidator:
    """A check of a mapping's keys, which names the wrong one."""

    def checked(given: Any) -> Any:
        for key in given if isinstance(given, dict) else ():
            try:
                check(str(key))
            except ValueError as error:
                raise ValueError(f"'{key}' is no {what}: {error}") from None
        return given

    return BeforeValidator(checked)


_name = _spelled(_DOMAIN, f"small letters, digits, '-' and '.' are allowed, {_ENDS}")
_namespace = _spelled(_PART, f"small letters, digits and '-' are allowed, {_ENDS}", 63)
_label = _spelled(
    f"({_DOMAIN}/)?{_LABEL}",
    f"at most 63 letters, digits, '-', '_' and '.' are allowed, {_ENDS}, and before them a domain and '/'",
    317,
)
_label_value = _spelled(f"({_LABEL})?", f"at most 63 letters, digits, '-', '_' and '.' are allowed, {_ENDS}")
_image = _spelled(
    _IMAGE,
    "no image: write registry/name:tag or registry/name@sha256:<64 hex digits>, the name in small letters",
    4096,
)
_resource = _spelled(r"[a-z0-9.-]+/[A-Za-z0-9._-]+", "no resource of nodes: write domain/name, as nvidia.com/gpu")
_variable = _spelled("[A-Za-z_][A-Za-z0-9_]*", "no environment variable: letters, digits and '_' are allowed")
_below = _spelled(
    r"(?!(.*/)?\.\.(/|$))([\w-][\w./-]*)?",
    "no folder below the mount: letters, digits and '_-./' are allowed, and no '..'",
)
_uri = _spelled(r"[A-Za-z][A-Za-z0-9+.-]*://\S+", "no URI: write it as s3://bucket/path", 4096)
_entry = _spelled("[-._A-Za-z0-9]+", "letters, digits, '-', '_' and '.' are allowed")

Cpu = Annotated[str, BeforeValidator(_as_text), AfterValidator(_cpu)]
Memory = Annotated[str, BeforeValidator(_as_text), AfterValidator(_memory)]
Minutes = Annotated[int, Field(gt=0, le=30 * 24 * 60)]
Name = Annotated[str, AfterValidator(_name)]
NameOrEmpty = Annotated[str, AfterValidator(lambda given: given and _name(given))]
Namespace = Annotated[str, AfterValidator(_namespace)]
Image = Annotated[str, AfterValidator(_image)]
Uri = Annotated[str, AfterValidator(_uri)]
UriOrEmpty = Annotated[str, AfterValidator(lambda given: given and _uri(given))]
Resource = Annotated[str, AfterValidator(_resource)]
LabelKey = Annotated[str, AfterValidator(_label)]
LabelValue = Annotated[str, BeforeValidator(_in_quotes), AfterValidator(_label_value)]
Labels = Annotated[dict[str, LabelValue], _keys("label", _label)]
Variables = Annotated[
    dict[str, Annotated[str, AfterValidator(_variable)]], _keys("key of a secret or ConfigMap", _entry)
]
Sources = Annotated[dict[str, Variables], _keys("name", _name)]
Below = Annotated[str, AfterValidator(_below)]
