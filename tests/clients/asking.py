"""What every client's program does: it is asked in JSON, and prints in JSON what the client gave.

It knows neither the clients nor the server. Each program runs in its client's own environment, so this file knows the
standard library alone.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

Asked = dict[str, Any]
"""url (it ends in /v1), model, question, want (the name of a case), extra (fields that are sent as they are) and
options (arguments of the client, such as max_tokens)."""
Case = Callable[[Asked], dict[str, Any]]


def said(text: str | None, finish: str | None, prompt: int | None, completion: int | None, pieces: int) -> Asked:
    """An answer in the form that the tests compare."""
    return {"text": text, "finish": finish, "tokens": [prompt, completion], "pieces": pieces}


def main(**cases: Case) -> None:
    """Ask all that is in the argument, one after the other, and print what came of each."""
    print(json.dumps([_result(cases[asked["want"]], asked) for asked in json.loads(sys.argv[1])]))


def _result(case: Case, asked: Asked) -> dict[str, Any]:
    """What the client gives, or the error that it raises, with the names of its classes."""
    try:
        return case(asked)
    except Exception as error:
        names = [kind.__name__ for kind in type(error).__mro__]
        return {"error": names, "message": str(error), "status": getattr(error, "status_code", None)}
