"""Unknown: reads the questions that no row answers, by which a retriever learns when it does not know.

It knows files and the column of the questions. It does not know the rows.
"""

from job.config.schema import Files
from job.data import files
from job.errors import DataError

COLUMN = "question"


def read_questions(names: Files) -> list[str]:
    """Read the questions of retriever.unknown.

    Args:
        names: a local file, a glob, or a list of them, in any format of `files`.

    Returns:
        The questions, each once, without surrounding blanks, in the order of the files.

    Raises:
        DataError: a file cannot be read, has no column of questions, or a value in it is no text; or there are fewer
            than two questions.
    """
    questions: dict[str, None] = {}
    for path in files.paths(names):
        for chunk in files.read(path, lambda schema: [name for name in schema.names if name == COLUMN]):
            if COLUMN not in chunk.columns:
                raise DataError(
                    f"retriever.unknown: {path} has the columns {', '.join(chunk.names) or 'none'}; expected "
                    f"{COLUMN!r}, with questions that no row answers"
                )
            for location, value in zip(chunk.locations, chunk.columns[COLUMN], strict=True):
                if not isinstance(value, str) or not value.strip():
                    raise DataError(
                        f"retriever.unknown: {path} {location}: found {files.type_name(value)} {value!r}, expected a "
                        "question"
                    )
                questions[value.strip()] = None
    if len(questions) < 2:
        raise DataError(
            f"retriever.unknown: expected at least 2 questions, found {len(questions)}: one half sets the threshold, "
            "the other measures it"
        )
    return list(questions)
