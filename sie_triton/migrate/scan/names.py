"""What the names of one module stand for: imports, what is bound to them where, and the classes they are made from."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sie_triton.migrate.scan.programs import Program

Function = ast.FunctionDef | ast.AsyncFunctionDef
Parametrized = Function | ast.Lambda
Scope = tuple[ast.AST, ...]
"""The classes and functions around a node, outermost first."""
_CHANGES = frozenset({"append", "clear", "extend", "insert", "pop", "popitem", "remove", "setdefault", "update"})
_SCOPES = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


@dataclass(frozen=True, slots=True)
class Bound:
    """An expression that a name may stand for, with the scope that it stands in.

    `each`: the name is one of the expression's elements, as in a loop.
    """

    value: ast.expr
    scope: Scope
    each: bool = False


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import gives to a name, as a dotted name, and the class or function that it stands in, if any."""

    dotted: str
    place: ast.AST | None


class Module:
    """One program with its names. Everything is collected once; nothing is evaluated."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.imports: dict[str, list[Imported]] = defaultdict(list)
        self.stars: list[str] = []
        self.scopes: dict[ast.AST, Scope] = {}
        self.bound: dict[tuple[ast.AST | None, str], list[Bound]] = defaultdict(list)
        self.attributes: dict[tuple[ast.ClassDef, str], list[Bound]] = defaultdict(list)
        self.definitions: dict[tuple[ast.AST | None, str], ast.AST] = {}
        self.calls: list[ast.Call] = []
        # Names of lists and maps that the module changes after it has written them out.
        self.changed: set[str] = set()
        self._walk(program.tree, ())

    def scope(self, node: ast.AST) -> Scope:
        """Where a node of this module stands."""
        return self.scopes.get(node, ())

    def lookup(self, name: str, scope: Scope) -> tuple[ast.AST | None, list[Bound]] | None:
        """The innermost scope in which a name is bound by assignment, and to what; None where it is bound nowhere."""
        for place in _visible(scope):
            if (place, name) in self.bound:
                return place, self.bound[place, name]
            if self._imports_at(name, place) or (isinstance(place, Parametrized) and name in parameter_names(place)):
                return place, []
        return None

    def imported(self, name: str, scope: Scope) -> list[str]:
        """What a name is imported as, by every import of it that may count: one in `try`, another in `except`.

        Empty where something else of that name is nearer. What functions import is known in the whole module.
        """
        for place in _visible(scope):
            if place is None:
                break
            here = self._imports_at(name, place)
            if here or self._binds(name, place):
                return here
        return [entry.dotted for entry in self.imports.get(name, ())]

    def meant(self, name: str) -> set[str]:
        """A name as it is written here, and as those call it that it is imported from."""
        return {name, *(entry.dotted.rpartition(".")[2] for entry in self.imports.get(name, ()))}

    def _imports_at(self, name: str, place: ast.AST | None) -> list[str]:
        return [entry.dotted for entry in self.imports.get(name, ()) if entry.place is place]

    def _binds(self, name: str, place: ast.AST | None) -> bool:
        return (
            (place, name) in self.bound
            or (place, name) in self.definitions
            or (isinstance(place, Parametrized) and name in parameter_names(place))
        )

    def definition(self, name: str, scope: Scope) -> ast.AST | None:
        """The class or function of this module that a name means."""
        for place in _visible(scope):
            if (place, name) in self.definitions:
                return self.definitions[place, name]
        return None

    def _walk(self, node: ast.AST, scope: Scope) -> None:
        pending: list[tuple[ast.AST, Scope]] = [(node, scope)]
        while pending:  # not by recursion: a long chain of operators is deep
            current, around = pending.pop()
            self.scopes[current] = around
            self._collect(current, around)
            inner = (*around, current) if isinstance(current, _SCOPES) else around
            outside = {id(child) for child in _outside(current)}
            pending += [(child, around if id(child) in outside else inner) for child in ast.iter_child_nodes(current)]
        self.calls.sort(key=lambda call: (call.lineno, call.col_offset))

    def _collect(self, node: ast.AST, scope: Scope) -> None:
        match node:
            case ast.Import() | ast.ImportFrom():
                self._collect_import(node, scope)
            case ast.Assign():
                for target in node.targets:
                    self._bind(target, node.value, scope)
            case ast.AnnAssign(value=ast.expr() as value) | ast.NamedExpr(value=value):
                self._bind(node.target, value, scope)
            case ast.For() | ast.AsyncFor() | ast.comprehension():
                self._bind(node.target, node.iter, scope, each=True)
            case ast.withitem(optional_vars=ast.expr() as target):
                self._bind(target, node.context_expr, scope)
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                self.definitions[scope[-1] if scope else None, node.name] = node
            case ast.Call():
                self.calls.append(node)
                self._collect_change(node.func)
            case ast.Subscript():
                self._collect_change(node)
            case _:
                pass

    def _collect_change(self, node: ast.expr) -> None:
        match node:
            case ast.Attribute(value=ast.Name(id=name), attr=method) if method in _CHANGES:
                self.changed.add(name)
            case ast.Subscript(value=ast.Name(id=name), ctx=ast.Store() | ast.Del()):
                self.changed.add(name)
            case _:
                pass

    def _collect_import(self, node: ast.Import | ast.ImportFrom, scope: Scope) -> None:
        source = f"{_absolute(node, self.program)}." if isinstance(node, ast.ImportFrom) else ""
        for alias in node.names:
            if alias.name == "*":
                self.stars.append(source.removesuffix("."))
                continue
            whole = bool(source or alias.asname)  # `import a.b` gives `a`
            name = alias.name if whole else alias.name.partition(".")[0]
            dotted = f"{source}{name}".strip(".")
            self.imports[alias.asname or name].append(Imported(dotted, scope[-1] if scope else None))

    def _bind(self, target: ast.expr, value: ast.expr, scope: Scope, *, each: bool = False) -> None:
        place = scope[-1] if scope else None
        match target:
            case ast.Name():
                self.bound[place, target.id].append(Bound(value, scope, each))
                if isinstance(place, ast.ClassDef):
                    self.attributes[place, target.id].append(Bound(value, scope, each))
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                owner = next((entry for entry in reversed(scope) if isinstance(entry, ast.ClassDef)), None)
                if owner is not None:
                    self.attributes[owner, target.attr].append(Bound(value, scope, each))
            case ast.Tuple() | ast.List() if isinstance(value, ast.Tuple | ast.List):
                if each:
                    self._bind_columns(target, value, scope)
                elif len(target.elts) == len(value.elts):
                    for part, its in zip(target.elts, value.elts, strict=True):
                        self._bind(part, its, scope)
            case ast.Tuple() | ast.List():
                for part in target.elts:
                    self._bind(part, _unknown(value), scope)
            case _:
                pass

    def _bind_columns(self, target: ast.Tuple | ast.List, rows: ast.Tuple | ast.List, scope: Scope) -> None:
        """`for name, size in [("a", 1), ("b", 2)]`: each name is one of its column."""
        for row in rows.elts:
            if isinstance(row, ast.Tuple | ast.List) and len(row.elts) == len(target.elts):
                for part, its in zip(target.elts, row.elts, strict=True):
                    self._bind(part, its, scope)


def _visible(scope: Scope) -> Iterator[ast.AST | None]:
    """The scopes whose names are known in a scope, the nearest first: what a class binds its functions do not see."""
    for position, place in enumerate(reversed(scope)):
        if not position or not isinstance(place, ast.ClassDef):
            yield place
    yield None


def parameter_names(function: Parametrized) -> tuple[str, ...]:
    """The parameters of a function in their order, without `*args` and `**kwargs`."""
    arguments = function.args
    return tuple(argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs))


def parameter_defaults(function: Parametrized) -> Mapping[str, ast.expr]:
    """The default of each parameter that has one."""
    arguments = function.args
    plain = [*arguments.posonlyargs, *arguments.args]
    found = {
        argument.arg: default for argument, default in zip(reversed(plain), reversed(arguments.defaults), strict=False)
    }
    named = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return found | {argument.arg: default for argument, default in named if default is not None}


def annotation_of(function: Function, name: str) -> ast.expr | None:
    """The annotation of a parameter."""
    arguments = function.args
    everyone = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
    return next((argument.annotation for argument in everyone if argument.arg == name), None)


def _outside(node: ast.AST) -> Iterator[ast.AST]:
    """What of a class or a function is evaluated outside of it: decorators, bases, defaults and annotations."""
    match node:
        case ast.ClassDef():
            yield from (*node.decorator_list, *node.bases, *node.keywords)
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            yield from (*node.decorator_list, node.args)
        case ast.Lambda():
            yield node.args
        case _:
            pass


def _unknown(value: ast.expr) -> ast.expr:
    """Something of the same place that is known to be nothing in particular."""
    return ast.copy_location(ast.Starred(value=value, ctx=ast.Load()), value)


def _absolute(node: ast.ImportFrom, program: Program) -> str:
    if not node.level:
        return node.module or ""
    package = program.module.split(".")
    is_package = program.path.name == "__init__.py"
    kept = package[: len(package) - node.level + is_package]
    return ".".join([*kept, *([node.module] if node.module else [])])
