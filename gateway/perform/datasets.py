"""Data sets as DICOM JSON (PS3.18, annex F): reading what any server may send, and writing."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

_SHORT = re.compile(r"[^\\^\x00-\x1f\x7f]{1,16}")
"""What the value and the scheme of a code may be (SH), without what separates the parts of one in a setting."""

Item = dict[str, Any]
"""A data set, or an item of a sequence, by tags of eight hexadecimal digits."""


def read_text(item: Item, keyword: str) -> str:
    """The first value of an element as text; empty where there is none, or one that is no text and no number."""
    value = next(iter(_list_values(item, keyword)), "")
    return str(value).strip() if isinstance(value, str | int | float) else ""


def read_items(item: Item, keyword: str) -> list[Item]:
    """The items of a sequence; what is none is passed over."""
    return [one for one in _list_values(item, keyword) if isinstance(one, dict)]


def read_codes(item: Item, keyword: str) -> tuple[Code, ...]:
    """The codes of a sequence of them; what could not be handed on is passed over."""
    found = []
    for one in read_items(item, keyword):
        value, scheme = read_text(one, "CodeValue"), read_text(one, "CodingSchemeDesignator")
        if _SHORT.fullmatch(value) and _SHORT.fullmatch(scheme):
            found.append(Code(value, scheme, read_text(one, "CodeMeaning")[:64] or value))
    return tuple(found)


def write_code(code: Code) -> Dataset:
    """A code as an item of a sequence."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item


def read_json(body: bytes) -> Any:
    """What a body says.

    Raises:
        ValueError: it is no JSON.
    """
    try:
        return json.loads(body)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def write_json(dataset: Dataset) -> bytes:
    """A data set as the body of a request."""
    return json.dumps(dataset.to_json_dict()).encode()


def _list_values(item: Item, keyword: str) -> list[Any]:
    element = item.get(_name_tag(keyword))
    values = element.get("Value") if isinstance(element, dict) else None
    return values if isinstance(values, list) else []


@cache
def _name_tag(keyword: str) -> str:
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    return f"{tag:08X}"
