"""The settings of `python -m serve`: what is refused at the start, and what --help names."""

from pathlib import Path

import pytest
from command_line import serve
from repositories import no_template


def test_refused_at_the_start_with_one_line_and_a_code(folder: Path) -> None:
    no_template(folder)
    ended = serve(str(folder))
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"error: {folder} cannot be served, it lacks a chat template")
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "environment", "says"),
    [
        (["MODEL", "--port", "65536"], {}, "--port"),
        (["MODEL", "--max-running", "0"], {}, "--max-running"),
        (["MODEL"], {"KICKOFF_TIMEOUT": "soon"}, "KICKOFF_TIMEOUT"),
        (["MODEL"], {"KICKOFF_API_KEY": "short"}, "KICKOFF_API_KEY: found 5 characters, expected at least 8"),
        ([], {}, "MODEL"),
        (["MODEL", "--drain-seconds", "inf"], {}, "--drain-seconds"),
        (["MODEL", "--drain-delay", "inf"], {}, "--drain-delay"),
        (["MODEL", "--drain-delay", "nan"], {}, "--drain-delay"),
        (["MODEL", "--timeout", "nan"], {}, "--timeout"),
        (["MODEL"], {"KICKOFF_HANG_SECONDS": "1e300"}, "--hang-seconds"),
        (["MODEL", "--keep-alive", "inf"], {}, "--keep-alive"),
        (["MODEL", "--read-seconds", "1e7"], {}, "--read-seconds"),
        (["MODEL", "--host", "a..b"], {}, "--host a..b"),
        (["MODEL", "--host", "x" * 70], {}, "--host xxx"),
    ],
)
def test_bad_settings_are_refused(arguments: list[str], environment: dict[str, str], says: str, folder: Path) -> None:
    ended = serve(*[str(folder) if one == "MODEL" else one for one in arguments], **environment)
    assert ended.returncode == 2
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr


def test_help_names_every_setting_and_its_variable() -> None:
    ended = serve("--help")
    assert ended.returncode == 0
    for option in ("revision", "port", "device", "dtype", "max-running", "max-waiting", "timeout", "drain-seconds"):
        assert f"--{option}" in ended.stdout
    assert "KICKOFF_PORT" in ended.stdout
