"""What text an expression may be: constants are followed through names, defaults, attributes and modules.

Nothing is executed. What cannot be told is said with its reason, beside what can.
"""

from __future__ import annotations

import ast
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sie_triton.migrate.scan.names import (
    Bound,
    Function,
    Module,
    Parametrized,
    Scope,
    parameter_defaults,
    parameter_names,
)
from sie_triton.migrate.scan.project import Project, keywords_of, map_entries

_DEEPEST = 14
_MOST = 32


@dataclass(frozen=True, slots=True)
class Text:
    """One text that an expression may be (None: it cannot be told), with a note on why or on what else may count."""

    value: str | None
    note: str = ""


_ITSELF = Text(None, "it is defined by itself")


class Values:
    """Evaluates expressions of a project as far as they are constants."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self._calls: dict[str, list[tuple[Module, ast.Call]]] = defaultdict(list)
        for module in project.modules:
            for call in module.calls:
                for name in module.meant(tail_name(call.func)):
                    self._calls[name].append((module, call))
        self._known: dict[ast.expr, tuple[Text, ...]] = {}

    def texts(self, module: Module, node: ast.expr) -> tuple[Text, ...]:
        """Every text that an expression may be, at most 32, each once."""
        found = self._texts(module, node, 0)
        return tuple(text for text in found if text is not _ITSELF) or found

    def _texts(self, module: Module, node: ast.expr, depth: int) -> tuple[Text, ...]:
        if node in self._known:
            return self._known[node]
        if depth > _DEEPEST:
            return (Text(None, "it is defined by too many steps"),)
        self._known[node] = (_ITSELF,)
        found = tuple(itertools.islice(dict.fromkeys(self._found(module, node, depth)), _MOST))
        self._known[node] = found
        return found

    def _found(self, module: Module, node: ast.expr, depth: int) -> Iterator[Text]:
        for part in _alternatives(node):
            yield from self._texts(module, part, depth + 1)
        match node:
            case ast.IfExp() | ast.BoolOp() | ast.NamedExpr() | ast.FormattedValue():
                return
            case ast.Constant(value=str() as value):
                yield Text(value)
            case ast.Constant(value=None):
                return
            case ast.JoinedStr():
                yield from self._joined(module, node.values, depth)
            case ast.BinOp(op=ast.Add()):
                yield from self._joined(module, [node.left, node.right], depth)
            case ast.Name():
                yield from self._name(module, node.id, module.scope(node), depth)
            case ast.Attribute():
                yield from self._attribute(module, node, depth)
            case ast.Subscript():
                yield from self._subscript(module, node, depth)
            case ast.Call():
                yield from self._call(module, node, depth)
            case _:
                yield Text(None, f"`{_shown(node)}` is known only when the program runs")

    def _joined(self, module: Module, parts: Iterable[ast.expr], depth: int) -> Iterator[Text]:
        columns = [list(self._texts(module, part, depth + 1)) for part in parts]
        for row in itertools.islice(itertools.product(*columns), _MOST):
            note = next((text.note for text in row if text.note), "")
            known = [text.value for text in row if text.value is not None]
            yield Text("".join(known) if len(known) == len(row) else None, note)

    def _bound(self, module: Module, bindings: Iterable[Bound], depth: int) -> Iterator[Text]:
        for bound in bindings:
            if bound.each:
                yield from self._elements(module, bound.value, depth)
            else:
                yield from self._texts(module, bound.value, depth + 1)

    def _name(self, module: Module, name: str, scope: Scope, depth: int) -> Iterator[Text]:
        found = module.lookup(name, scope)
        if found is not None:
            place, bindings = found
            yield from self._bound(module, bindings, depth)
            if isinstance(place, Parametrized) and name in parameter_names(place):
                yield from self._parameter(module, place, name, depth)
        imports = module.imported(name, scope)
        for dotted in imports:
            yield from self._imported(dotted, depth)
        if found is None and not imports:
            yield Text(None, f"`{name}` is not defined in this file")

    def _imported(self, dotted: str, depth: int) -> Iterator[Text]:
        found = self.project.find(dotted)
        if found is None:
            yield Text(None, f"`{dotted}` is not in this code base")
            return
        module, rest = found
        head, _, attribute = rest.partition(".")
        bindings = module.bound.get((None, head), [])
        owner = module.definition(head, ())
        if attribute and isinstance(owner, ast.ClassDef):
            yield from self._of_class(module, owner, attribute, depth)
        elif attribute and bindings:
            made = self.project.own_class(module, bindings[0].value)
            if made is None:
                yield Text(None, f"`{dotted}` is known only when the program runs")
            else:
                yield from self._of_class(module, made, attribute, depth)
        elif bindings:
            yield from self._bound(module, bindings, depth)
        elif (sources := [source for source in module.imported(head, ()) if source != dotted]) and depth < _DEEPEST:
            for source in sources:
                yield from self._imported(source, depth + 1)
        else:
            yield Text(None, f"`{dotted}` is known only when the program runs")

    def _parameter(self, module: Module, function: Parametrized, name: str, depth: int) -> Iterator[Text]:
        """The default of a parameter, and what the calls of the function in this code base give."""
        told = False
        default = parameter_defaults(function).get(name)
        if default is not None:
            texts = list(self._texts(module, default, depth + 1))
            told = bool(texts)
            yield from texts
        for caller, argument in self._arguments(module, function, name) if isinstance(function, Function) else ():
            told = True
            yield from self._texts(caller, argument, depth + 1)
        if not told:
            title = f"`{function.name}`" if isinstance(function, Function) else "a lambda"
            yield Text(None, f"the callers of {title} give it as `{name}`")

    def _arguments(self, module: Module, function: Function, name: str) -> Iterator[tuple[Module, ast.expr]]:
        owner = next((entry for entry in reversed(module.scope(function)) if isinstance(entry, ast.ClassDef)), None)
        wanted: ast.AST = owner if owner is not None and function.name == "__init__" else function
        position = parameter_names(function).index(name) - (owner is not None)
        title = owner.name if owner is not None and wanted is owner else function.name
        for caller, call in self._calls[title]:
            found = self.project.definition_of(caller, call.func)
            method = owner is not None and wanted is function and tail_name(call.func) == function.name
            if not method and (found is None or found[1] is not wanted):
                continue
            if (given := keywords_of(call).get(name)) is not None:
                yield caller, given
            elif 0 <= position < len(call.args):
                yield caller, call.args[position]

    def _attribute(self, module: Module, node: ast.Attribute, depth: int) -> Iterator[Text]:
        if node.attr == "value" and isinstance(node.value, ast.Attribute):
            yield from self._attribute(module, node.value, depth + 1)  # an enumeration's member
            return
        owner = self.project.own_class(module, node.value)
        if owner is not None:
            yield from self._of_class(module, owner, node.attr, depth)
            return
        if (argument := _command_line_default(module, node)) is not None:
            for text in self._texts(module, argument, depth + 1):
                yield Text(text.value, text.note or f"the command line's `{node.attr}` may say otherwise")
            return
        for dotted in self.project.qualified(module, node.value):
            if self.project.find(f"{dotted}.{node.attr}") is not None and "(" not in dotted:
                yield from self._imported(f"{dotted}.{node.attr}", depth + 1)
                return
            if dotted.endswith("()") and self.project.find(f"{dotted[:-2]}.{node.attr}") is not None:
                yield from self._imported(f"{dotted[:-2]}.{node.attr}", depth + 1)
                return
        yield Text(None, f"`{_shown(node)}` is known only when the program runs")

    def _of_class(self, module: Module, owner: ast.ClassDef, name: str, depth: int) -> Iterator[Text]:
        bindings = module.attributes.get((owner, name), [])
        if not bindings:
            bases = [self.project.definition_of(module, base) for base in owner.bases]
            for found in bases:
                if found is not None and isinstance(found[1], ast.ClassDef) and found[1] is not owner:
                    yield from self._of_class(found[0], found[1], name, depth + 1)
                    return
            yield Text(None, f"`{owner.name}.{name}` is set elsewhere")
            return
        yield from self._bound(module, bindings, depth)

    def _elements(self, module: Module, node: ast.expr, depth: int, key: ast.expr | None = None) -> Iterator[Text]:
        """The elements of a list or the values of a map that is written out; only that of `key` where it is known."""
        source = self.written(module, node)
        entries = map_entries(source) if source is not None else {}
        if entries:
            wanted = list(self.texts(module, key)) if key is not None else [Text(name) for name in entries]
            chosen = [text.value for text in wanted if text.value in entries]
            for name in chosen or entries:
                loop = key is None
                yield from ([Text(name)] if loop else self._texts(module, entries[str(name)], depth + 1))
        elif isinstance(source, ast.List | ast.Tuple | ast.Set):
            index = key.value if isinstance(key, ast.Constant) and isinstance(key.value, int) else None
            elements = source.elts if index is None else source.elts[index : index + 1 or None]
            for element in elements:
                yield from self._texts(module, element, depth + 1)
        else:
            yield Text(None, f"`{_shown(node)}` is known only when the program runs")

    def unpacked(self, module: Module, call: ast.Call) -> ast.Call:
        """A call whose `*arguments` and `**keywords` are written out where the program writes them out."""
        arguments: list[ast.expr] = []
        for argument in call.args:
            source = self._unchanged(module, argument.value) if isinstance(argument, ast.Starred) else None
            arguments += source.elts if isinstance(source, ast.List | ast.Tuple) else [argument]
        keywords: list[ast.keyword] = []
        for keyword in call.keywords:
            keywords += [keyword] if keyword.arg is not None else self._keywords(module, keyword.value)
        return ast.copy_location(ast.Call(func=call.func, args=arguments, keywords=keywords), call)

    def _keywords(self, module: Module, node: ast.expr, depth: int = 0) -> list[ast.keyword]:
        """What `**node` gives; itself where that cannot be told."""
        source = self._unchanged(module, node) if depth < _DEEPEST else None
        if isinstance(source, ast.Call) and isinstance(source.func, ast.Name) and source.func.id == "dict":
            inside = [(keyword.arg, keyword.value) for keyword in source.keywords]
        elif isinstance(source, ast.Dict):
            inside = [
                (str(key.value) if isinstance(key, ast.Constant) else None, value)
                for key, value in zip(source.keys, source.values, strict=True)
                if key is None or isinstance(key, ast.Constant)
            ]
        else:
            return [ast.keyword(arg=None, value=node)]
        found: list[ast.keyword] = []
        for name, value in inside:
            found += [ast.keyword(arg=name, value=value)] if name else self._keywords(module, value, depth + 1)
        return found

    def _unchanged(self, module: Module, node: ast.expr) -> ast.expr | None:
        return None if isinstance(node, ast.Name) and node.id in module.changed else self.written(module, node)

    def written(self, module: Module, node: ast.expr) -> ast.expr | None:
        """The list or map that an expression stands for, where it is written out in this module."""
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "values":
            node = node.func.value
            source = self.written(module, node)
            return ast.List(elts=list(map_entries(source).values()), ctx=ast.Load()) if source else None
        if isinstance(node, ast.Name):
            found = module.lookup(node.id, module.scope(node))
            if found and len(found[1]) == 1 and not found[1][0].each:
                return found[1][0].value
            return None
        return node

    def _subscript(self, module: Module, node: ast.Subscript, depth: int) -> Iterator[Text]:
        if _shown(node.value) in ("os.environ", "environ"):
            variable = str(node.slice.value) if isinstance(node.slice, ast.Constant) else "?"
            yield Text(None, f"the environment variable `{variable}` has it")
        else:
            yield from self._elements(module, node.value, depth, node.slice)

    def _call(self, module: Module, node: ast.Call, depth: int) -> Iterator[Text]:
        name = _shown(node.func)
        if name in ("os.getenv", "getenv", "os.environ.get", "environ.get", "config", "env", "env.str"):
            yield from self._variable(module, node, depth)
        elif name in ("str", "Path", "pathlib.Path") and len(node.args) == 1:
            yield from self._texts(module, node.args[0], depth + 1)
        elif name.rpartition(".")[2] == "Field":
            default = keywords_of(node).get("default") or (node.args[0] if node.args else None)
            yield from (
                self._texts(module, default, depth + 1)
                if default is not None
                else [Text(None, "a setting without default has it")]
            )
        elif isinstance(node.func, ast.Attribute) and node.func.attr == "get" and node.args:
            yield from self._elements(module, node.func.value, depth, node.args[0])
            if len(node.args) > 1:
                yield from self._texts(module, node.args[1], depth + 1)
        elif isinstance(node.func, ast.Attribute) and node.func.attr in ("strip", "rstrip", "lstrip"):
            yield from self._texts(module, node.func.value, depth + 1)
        else:
            yield from self._result(module, node, depth)

    def _variable(self, module: Module, node: ast.Call, depth: int) -> Iterator[Text]:
        first = node.args[0] if node.args else None
        variable = str(first.value) if isinstance(first, ast.Constant) else "?"
        default = keywords_of(node).get("default") or (node.args[1] if len(node.args) > 1 else None)
        if default is None:
            yield Text(None, f"the environment variable `{variable}` has it")
            return
        for text in self._texts(module, default, depth + 1):
            yield Text(text.value, text.note or f"the environment variable `{variable}` may say otherwise")

    def _result(self, module: Module, node: ast.Call, depth: int) -> Iterator[Text]:
        found = self.project.definition_of(module, node.func)
        returned = []
        if found is not None and isinstance(found[1], Function):
            returned = [part.value for part in ast.walk(found[1]) if isinstance(part, ast.Return) and part.value]
        for value in returned:
            yield from self._texts(found[0] if found else module, value, depth + 1)
        if not returned:
            yield Text(None, f"`{_shown(node)}` is known only when the program runs")


def _alternatives(node: ast.expr) -> list[ast.expr]:
    """The expressions of which one gives the value."""
    match node:
        case ast.IfExp():
            return [node.body, node.orelse]
        case ast.BoolOp():
            return node.values
        case ast.NamedExpr() | ast.FormattedValue():
            return [node.value]
        case _:
            return []


def tail(node: ast.expr) -> str:
    """The text that an expression surely ends with, such as the path of a URL whose host is variable."""
    match node:
        case ast.Constant(value=str() as value):
            return value
        case ast.JoinedStr(values=[*_, last]):
            return tail(last)
        case ast.BinOp(op=ast.Add()):
            return tail(node.right)
        case _:
            return ""


def _command_line_default(module: Module, node: ast.Attribute) -> ast.expr | None:
    """The default of the option `--name` where `args.name` is read from argparse's `parse_args()`."""
    made = module.lookup(node.value.id, module.scope(node)) if isinstance(node.value, ast.Name) else None
    if not made or not any("parse_args" in _shown(bound.value) for bound in made[1]):
        return None
    for call in module.calls:
        if tail_name(call.func) == "add_argument" and any(
            isinstance(spelling, ast.Constant) and str(spelling.value).lstrip("-").replace("-", "_") == node.attr
            for spelling in call.args
        ):
            return keywords_of(call).get("default")
    return None


def tail_name(node: ast.expr) -> str:
    """The last part of a dotted name, "" where an expression is none."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _shown(node: ast.AST) -> str:
    try:
        text = ast.unparse(node)
    except (ValueError, RecursionError, AttributeError):
        return "…"
    return text if len(text) <= 60 else f"{text[:57]}…"
