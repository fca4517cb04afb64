"""Readers and writers of our records, compiled from the Avro schema to Python functions.

A compiled function does not walk the schema for each record, and needs no dicts between bytes and structs. It takes a
sixth to a half of the time of fastavro: see docs/adr/0018-what-makes-an-event-cheap.md. It supports the Avro types of
our schemas only. ``codec`` reads records of other schema versions with fastavro. The tests compare both.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Schema = str | list[Any] | dict[str, Any]

_ONE_BYTE = 128
_LAST_SHIFT = 63
_LARGEST = (1 << 64) - 1
_CACHED_LENGTHS = 1 << 16
_CACHED_NUMBERS = 1 << 15


def compile_reader(
    schema: Mapping[str, Any], types: Mapping[str, type[Any]], *, before: str | None = None
) -> Callable[[bytes, int], Any]:
    """A function that reads a struct from bytes with an Avro body, at a position.

    ``types`` has the struct or enum of each named type of the schema. With ``before``, only the fields before that one
    are read, and the others get their defaults. For damaged bytes the function raises ``IndexError``, ``ValueError`` or
    a subclass.
    """
    return _Reader(types).compile(schema, before)


def compile_writer(schema: Mapping[str, Any]) -> Callable[[Any], bytes]:
    """A function that writes a struct with the schema's fields as an Avro body.

    For a struct that the schema cannot express, the function raises ``AttributeError``, ``TypeError``, ``KeyError`` or
    ``ValueError``.
    """
    return _Writer().compile(schema)


class _Source:
    """The source lines of a function, and the names that they use."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {}
        self._lines: list[str] = []
        self._depth = 1
        self._count = 0

    def add(self, *lines: str) -> None:
        self._lines += ["    " * self._depth + line for line in lines]

    def new_name(self) -> str:
        self._count += 1
        return f"v{self._count}"

    def indent(self, head: str) -> None:
        self.add(head)
        self._depth += 1

    def dedent(self) -> None:
        self._depth -= 1

    def function(self, head: str) -> Any:
        namespace: dict[str, Any] = dict(self.names)
        # The source contains only names of our own schemas, never received data.
        exec(compile("\n".join([head, *self._lines]), "<avro>", "exec"), namespace)  # noqa: S102 - see above
        return namespace["function"]


class _Reader:
    """Generates ``function(b, p)``: ``b`` contains the body, ``p`` is the position, ``n`` a length or a number."""

    def __init__(self, types: Mapping[str, type[Any]]) -> None:
        self._types = types
        self._source = _Source()
        self._source.names = {"read_long": _read_long, "blocks": _blocks}

    def compile(self, schema: Mapping[str, Any], before: str | None) -> Callable[[bytes, int], Any]:
        fields: list[dict[str, Any]] = schema["fields"]
        names = [field["name"] for field in fields]
        record = self._record(schema["name"], fields[: None if before is None else names.index(before)])
        # A slice past the end is shorter, and raises nothing.
        self._source.add("if p > len(b):", "    raise ValueError('the record ends too early')", f"return {record}")
        return self._source.function("def function(b, p):")

    def _record(self, name: str, fields: list[dict[str, Any]]) -> str:
        """Generate the reads of the fields. Return the expression that makes the struct."""
        struct = self._types[name]
        values = {field["name"]: self._value(field["type"]) for field in fields}
        self._source.names[name] = struct
        order = [each for each in struct.__struct_fields__ if each in values]
        if order == list(struct.__struct_fields__[: len(order)]):  # positional arguments take a fifth of the time
            return f"{name}({', '.join(values[each] for each in order)})"
        return f"{name}({', '.join(f'{each}={values[each]}' for each in order)})"

    def _value(self, schema: Schema) -> str:
        """Generate the read of one value. Return the name of its variable."""
        source, value = self._source, self._source.new_name()
        if isinstance(schema, list):
            assert schema[0] == "null"
            source.indent("if b[p]:")
            source.add("p += 1")
            source.add(f"{value} = {self._value(schema[1])}")
            source.dedent()
            source.indent("else:")
            source.add("p += 1", f"{value} = None")
            source.dedent()
        elif schema in ("string", "bytes"):
            source.add("n = b[p]", f"if n < {_ONE_BYTE}:", "    p += 1", "else:", "    n, p = read_long(b, p)")
            source.add("if n & 1:", "    raise ValueError('a negative length')", "n = p + (n >> 1)")
            source.add(f"{value} = b[p:n]" + (".decode()" if schema == "string" else ""), "p = n")
        elif schema == "long":
            source.add("n, p = read_long(b, p)", f"{value} = (n >> 1) ^ -(n & 1)")
        elif isinstance(schema, dict):
            self._complex(schema, value)
        else:
            raise NotImplementedError(f"Avro type {schema}")
        return value

    def _complex(self, schema: dict[str, Any], value: str) -> None:
        source, kind = self._source, schema["type"]
        if kind == "record":
            source.add(f"{value} = {self._record(schema['name'], schema['fields'])}")
        elif kind == "enum":
            members = f"{schema['name']}_members"
            source.names[members] = [self._types[schema["name"]](symbol) for symbol in schema["symbols"]]
            source.add("n, p = read_long(b, p)", f"{value} = {members}[n >> 1]")
        elif kind in ("array", "map"):
            collected = source.new_name()
            source.add(f"{collected} = {'[]' if kind == 'array' else '{}'}")
            source.indent("while b[p]:")
            count = source.new_name()
            source.add(f"{count}, p = blocks(b, p)")
            source.indent(f"for _ in range({count}):")
            if kind == "array":
                source.add(f"{collected}.append({self._value(schema['items'])})")
            else:
                key = self._value("string")
                source.add(f"{collected}[{key}] = {self._value(schema['values'])}")
            source.dedent()
            source.dedent()
            source.add("p += 1", f"{value} = {f'tuple({collected})' if kind == 'array' else collected}")
        else:  # a logical type: times stay numbers
            source.add(f"{value} = {self._value(kind)}")


class _Writer:
    """Generates ``function(r)``: ``r`` is the struct, ``out`` becomes the body, ``x`` is the text to write."""

    def __init__(self) -> None:
        self._source = _Source()
        self._source.names = {"length": _Lengths(), "long": _long}

    def compile(self, schema: Mapping[str, Any]) -> Callable[[Any], bytes]:
        self._source.add("out = bytearray()")
        self._record("r", schema)
        self._source.add("return bytes(out)")
        return self._source.function("def function(r):")

    def _record(self, expression: str, schema: Mapping[str, Any]) -> None:
        for field in schema["fields"]:
            self._value(f"{expression}.{field['name']}", field["type"])

    def _value(self, expression: str, schema: Schema) -> None:
        source = self._source
        if isinstance(schema, list):
            assert schema[0] == "null"
            value = source.new_name()
            source.add(f"{value} = {expression}")
            source.indent(f"if {value} is None:")
            source.add(r"out += b'\0'")
            source.dedent()
            source.indent("else:")
            source.add(r"out += b'\2'")
            self._value(value, schema[1])
            source.dedent()
        elif schema in ("string", "bytes"):
            source.add(f"x = {expression}" + (".encode()" if schema == "string" else ""), "out += length[len(x)]")
            source.add("out += x")
        elif schema == "long":
            source.add(f"out += long({expression})")
        elif isinstance(schema, dict):
            self._complex(expression, schema)
        else:
            raise NotImplementedError(f"Avro type {schema}")

    def _complex(self, expression: str, schema: dict[str, Any]) -> None:
        source, kind = self._source, schema["type"]
        if kind == "record":
            self._record(expression, schema)
        elif kind == "enum":
            symbols = f"{schema['name']}_symbols"
            source.names[symbols] = {symbol: _long(at) for at, symbol in enumerate(schema["symbols"])}
            source.add(f"out += {symbols}[{expression}]")
        elif kind in ("array", "map"):
            values, each = source.new_name(), source.new_name()
            source.add(f"{values} = {expression}")
            source.indent(f"if {values}:")
            source.add(f"out += length[len({values})]")
            if kind == "array":
                source.indent(f"for {each} in {values}:")
                self._value(each, schema["items"])
            else:
                key = source.new_name()
                source.indent(f"for {key}, {each} in {values}.items():")
                self._value(key, "string")
                self._value(each, schema["values"])
            source.dedent()
            source.dedent()
            source.add(r"out += b'\0'")
        else:
            self._value(expression, kind)


def _read_long(body: bytes, position: int) -> tuple[int, int]:
    """The number at the position, still zigzag-encoded, and the position after it."""
    byte = body[position]
    position += 1
    value = byte & 127
    shift = 7
    while byte >= _ONE_BYTE:
        if shift > _LAST_SHIFT:
            raise ValueError("a number of more than 64 bits")
        byte = body[position]
        position += 1
        value |= (byte & 127) << shift
        shift += 7
    if value > _LARGEST:
        raise ValueError("a number of more than 64 bits")
    return value, position


def _blocks(body: bytes, position: int) -> tuple[int, int]:
    """The number of items in the next block of an array or a map, and the position of the first one."""
    count, position = _read_long(body, position)
    if count & 1:  # a negative count is followed by the block's size in bytes
        _, position = _read_long(body, position)
        return (count >> 1) + 1, position
    return count >> 1, position


@lru_cache(maxsize=_CACHED_NUMBERS)  # the next state of an instance repeats most times
def _long(value: int) -> bytes:
    if not -(1 << 63) <= value < 1 << 63:
        raise ValueError(f"{value} does not fit into 64 bits")
    rest = (value << 1) ^ (value >> 63)
    written = bytearray()
    while rest >= _ONE_BYTE:
        written.append(rest & 127 | 128)
        rest >>= 7
    written.append(rest)
    return bytes(written)


class _Lengths(dict[int, bytes]):
    """Encoded lengths, each computed once."""

    def __missing__(self, length: int) -> bytes:
        written = _long(length)
        if length < _CACHED_LENGTHS:
            self[length] = written
        return written
