"""Reading a checkpoint's JSON files: what is damaged is refused by the file's name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from phaseprune.errors import UserError


def read_json_object(path: Path) -> dict[str, Any]:
    """The object that a file holds.

    Raises:
        UserError: it cannot be read, is no JSON, is nested too deeply, or is no object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise UserError(
            f"{path.name} is damaged: it is nested deeper than any such file; fetch it again"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path.name} is damaged ({error}); fetch it again") from None
    if not isinstance(found, dict):
        raise UserError(f"{path.name} is damaged: it is no JSON object; fetch it again")
    return found
