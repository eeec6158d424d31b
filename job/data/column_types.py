"""Column types: which columns of a file may tell rows apart, and which hold pictures or sounds.

It knows the types and names of columns. It does not read their values.
"""

from collections.abc import Iterable

import pyarrow as pa

from job.data.column_names import CONTEXT_NAMES, QUESTION_NAMES, has_name_in, is_irrelevant


def informative_columns(schema: pa.Schema) -> Iterable[str]:
    """Find the columns whose values are worth reading.

    These are texts, numbers, booleans, lists and objects of them, and columns whose name says that a question needs
    them. Columns of bytes are left to `media_columns`.

    Yields:
        The names of the columns.
    """
    for column in schema:
        if _holds_bytes(column.type) or is_irrelevant(column.name):
            continue
        if has_name_in(column.name, CONTEXT_NAMES | QUESTION_NAMES) or _is_informative(column.type):
            yield column.name


def media_columns(schema: pa.Schema) -> Iterable[str]:
    """Find the columns of pictures and sounds that a question needs, by their names.

    Yields:
        The names of the columns.
    """
    for column in schema:
        if _holds_bytes(column.type) and has_name_in(column.name, CONTEXT_NAMES):
            yield column.name


def _is_informative(type_: pa.DataType) -> bool:
    inner = type_.value_type if pa.types.is_dictionary(type_) else type_
    if pa.types.is_list(inner) or pa.types.is_large_list(inner):
        # lists of short floats are embeddings, and large
        item = inner.value_type
        return not (pa.types.is_float32(item) or pa.types.is_float16(item)) and _is_informative(item)
    if pa.types.is_struct(inner):
        return any(_is_informative(inner.field(number).type) for number in range(inner.num_fields))
    if pa.types.is_integer(inner) or pa.types.is_floating(inner) or pa.types.is_decimal(inner):
        return True
    texts = pa.types.is_string(inner) or pa.types.is_large_string(inner) or pa.types.is_string_view(inner)
    return bool(texts or pa.types.is_boolean(inner))


def _holds_bytes(type_: pa.DataType) -> bool:
    if pa.types.is_binary(type_) or pa.types.is_large_binary(type_) or pa.types.is_fixed_size_binary(type_):
        return True
    return any(_holds_bytes(type_.field(number).type) for number in range(type_.num_fields))
