"""The small changes of a module's source that a test should notice: one mutant for each."""

from __future__ import annotations

import ast
import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.Add,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
_LOGS = frozenset({"debug", "info", "warning", "error", "exception", "critical"})


@dataclass(frozen=True, slots=True)
class Mutant:
    function: str
    """The qualified name of the changed function or class."""
    change: str
    """``before -> after``, each as Python prints the line."""
    tree: ast.Module
    """The whole changed module, with the old line numbers."""

    def __str__(self) -> str:
        return f"{self.function}: {self.change}"


def mutants_of(source: str) -> list[Mutant]:
    """Every change of this module, by line. Texts for people (errors, logs, docstrings) are not changed."""
    tree = ast.parse(source)
    found = list[Mutant]()
    for function, path, node in _places(tree, "", ()):
        for replacement in _replacements(node):
            changed = copy.deepcopy(tree)
            ast.copy_location(replacement, node)
            _put(changed, path, replacement)
            ast.fix_missing_locations(changed)
            before, after = _statement(tree, path), _statement(changed, path)
            change = f"{ast.unparse(before).splitlines()[0]} -> {ast.unparse(after).splitlines()[0]}"
            found.append(Mutant(function or "<module>", change, changed))
    return found


Step = tuple[str, int | None]
Path = tuple[Step, ...]


def _places(node: ast.AST, function: str, path: Path) -> Iterator[tuple[str, Path, ast.AST]]:
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        if name == "keywords" and _is_for_checkers(node):
            continue
        children: Iterable[tuple[int | None, object]] = (
            enumerate(cast("list[object]", value)) if isinstance(value, list) else [(None, value)]
        )
        for index, child in children:
            if not isinstance(child, ast.AST) or _is_for_people(child):
                continue
            inside = function
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inside = f"{function}.{child.name}" if function else child.name
            below = (*path, (name, index))
            yield inside, below, child
            yield from _places(child, inside, below)


def _is_for_people(node: ast.AST) -> bool:
    match node:
        case ast.Expr(value=ast.Constant()) | ast.JoinedStr() | ast.Import() | ast.ImportFrom():
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr=attr))):
            return attr in _LOGS
        case ast.Assign(targets=[ast.Name(id=name)]):
            return name.endswith("_S")  # a waiting time is a choice
        case ast.If(body=body, orelse=orelse):
            return all(isinstance(each, ast.Expr | ast.If) and _is_for_people(each) for each in [*body, *orelse])
        case _:
            return isinstance(node, ast.AnnAssign) and node.value is None


def _is_for_checkers(node: ast.AST) -> bool:
    """Its keywords only forbid misuse: a class's ``frozen``, ``strict`` of ``zip``."""
    return isinstance(node, ast.ClassDef) or (isinstance(node, ast.Call) and ast.unparse(node.func) == "zip")


def _replacements(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.stmt():
            yield from _other_statements(node)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            yield ast.BinOp(left, _OPERATORS[type(op)](), right)
        case ast.Compare() | ast.BoolOp() | ast.UnaryOp() | ast.IfExp():
            yield from _other_conditions(node)
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield ast.Constant(value + 1)
        case _:
            return


def _other_conditions(node: ast.expr) -> Iterator[ast.AST]:
    match node:
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            for at, op in enumerate(ops):
                yield ast.Compare(left, [*ops[:at], _COMPARISONS[type(op)](), *ops[at + 1 :]], comparators)
        case ast.BoolOp(op=op, values=values):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand
        case ast.IfExp(test=test, body=body, orelse=orelse):
            yield ast.IfExp(test, orelse, body)
        case _:
            return


def _other_statements(node: ast.stmt) -> Iterator[ast.AST]:
    match node:
        case ast.AugAssign(target=target, op=op, value=value) if type(op) in _OPERATORS:
            yield ast.AugAssign(target, _OPERATORS[type(op)](), value)
        case ast.If(test=ast.Compare() | ast.UnaryOp() | ast.BoolOp()):
            return  # its condition is changed
        case ast.If(test=test, body=body, orelse=orelse):
            yield ast.If(ast.UnaryOp(ast.Not(), test), body, orelse)
        case ast.Return(value=value) if value is not None and not isinstance(value, ast.Constant):
            yield ast.Return(ast.Constant(None))
        case ast.Raise() | ast.Expr(value=ast.Call() | ast.Await()):
            yield ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield ast.Pass()
        case ast.Continue():
            yield ast.Break()
        case ast.Break():
            yield ast.Continue()
        case _:
            return


def _put(tree: ast.AST, path: Path, replacement: ast.AST) -> None:
    *above, (name, index) = path
    for step in above:
        tree = _below(tree, step)
    if index is None:
        setattr(tree, name, replacement)
    else:
        getattr(tree, name)[index] = replacement


def _statement(tree: ast.AST, path: Path) -> ast.stmt:
    """The innermost statement on this path, whose first line is printed."""
    statement = None
    for step in path:
        tree = _below(tree, step)
        statement = tree if isinstance(tree, ast.stmt) else statement
    assert statement is not None
    return statement


def _below(tree: ast.AST, step: Step) -> ast.AST:
    name, index = step
    return getattr(tree, name) if index is None else getattr(tree, name)[index]
