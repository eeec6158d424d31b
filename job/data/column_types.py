"""Column types: which of a file's columns can be judged, and which hold pictures or sounds.

It knows types and names of columns. It does not read their values.
"""

from collections.abc import Iterable

import pyarrow as pa

from job.data.column_names import ASKING, NEEDED, is_one_of, never_matters


def worth_reading(schema: pa.Schema) -> Iterable[str]:
    """Of a file's columns those that can be judged: texts, numbers, true and false, lists and objects of them, and what
    bears the name of something needed. What holds bytes, such as pictures, is told of by `unread`."""
    for column in schema:
        if _holds_bytes(column.type) or never_matters(column.name):
            continue
        if is_one_of(column.name, NEEDED | ASKING) or _can_be_judged(column.type):
            yield column.name


def unread(schema: pa.Schema) -> Iterable[str]:
    """The columns of pictures and sounds by whose names a question needs them."""
    for column in schema:
        if _holds_bytes(column.type) and is_one_of(column.name, NEEDED):
            yield column.name


def _can_be_judged(type_: pa.DataType) -> bool:
    inner = type_.value_type if pa.types.is_dictionary(type_) else type_
    if pa.types.is_list(inner) or pa.types.is_large_list(inner):
        # lists of short floats are embeddings, and large
        of = inner.value_type
        return not (pa.types.is_float32(of) or pa.types.is_float16(of)) and _can_be_judged(of)
    if pa.types.is_struct(inner):
        return any(_can_be_judged(inner.field(number).type) for number in range(inner.num_fields))
    if pa.types.is_integer(inner) or pa.types.is_floating(inner) or pa.types.is_decimal(inner):
        return True
    texts = pa.types.is_string(inner) or pa.types.is_large_string(inner) or pa.types.is_string_view(inner)
    return bool(texts or pa.types.is_boolean(inner))


def _holds_bytes(type_: pa.DataType) -> bool:
    if pa.types.is_binary(type_) or pa.types.is_large_binary(type_) or pa.types.is_fixed_size_binary(type_):
        return True
    return any(_holds_bytes(type_.field(number).type) for number in range(type_.num_fields))
