"""All modules of a code base, and what dotted names mean across them."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping

from sie_triton.migrate.scan.names import Bound, Function, Module, Scope, annotation_of
from sie_triton.migrate.scan.table import find_callable, known_package

_DEEPEST = 40
_MOST = 64
# Functions that give the module of a name.
_IMPORTERS = ("import_module", "importorskip")


class Project:
    """The modules, found by the end of their dotted name: a code base may be scanned from above its root."""

    def __init__(self, modules: Iterable[Module]) -> None:
        self.modules = tuple(modules)
        # Names of expressions, of names in a scope and of imports; what is looked for within itself has none there.
        self._known: dict[object, tuple[str, ...]] = {}
        self._depth = 0
        self._by_end: dict[str, list[Module]] = {}
        for module in self.modules:
            parts = module.program.module.split(".")
            for start in range(len(parts)):
                self._by_end.setdefault(".".join(parts[start:]), []).append(module)

    def find(self, dotted: str) -> tuple[Module, str] | None:
        """The module that defines a dotted name, and the rest of the name; None if none does, or several might."""
        head, _, rest = dotted.rpartition(".")
        while head:
            found = self._by_end.get(head, [])
            if len(found) == 1:
                return found[0], rest
            head, _, last = head.rpartition(".")
            rest = f"{last}.{rest}"
        return None

    # What a callable is called -----------------------------------------------------------------------------------

    def qualified(self, module: Module, node: ast.expr) -> tuple[str, ...]:
        """The dotted names that an expression may have, such as `openai.OpenAI().embeddings.create`; at most 64."""
        return self._once(node, lambda: self._of_expression(module, node))

    def _once(self, key: object, find: Callable[[], Iterator[str]]) -> tuple[str, ...]:
        if key in self._known:
            return self._known[key]
        if self._depth >= _DEEPEST:
            return ()
        self._known[key] = ()
        self._depth += 1
        try:
            self._known[key] = tuple(itertools.islice(dict.fromkeys(find()), _MOST))
        finally:
            self._depth -= 1
        return self._known[key]

    def _of_expression(self, module: Module, node: ast.expr) -> Iterator[str]:
        scope = module.scope(node)
        match node:
            case ast.Name():
                yield from self._qualified_name(module, node.id, scope)
            case ast.Attribute():
                yield from self._qualified_attribute(module, node)
            case ast.Call():
                yield from self._qualified_call(module, node)
            case ast.Await() | ast.NamedExpr():
                yield from self.qualified(module, node.value)
            case ast.Subscript():
                yield from self._element(module, node.value, node.slice)
            case _:
                for part in _any_of(node):
                    yield from self.qualified(module, part)

    def _qualified_name(self, module: Module, name: str, scope: Scope) -> tuple[str, ...]:
        return self._once((module, name, scope), lambda: self._of_name(module, name, scope))

    def _of_name(self, module: Module, name: str, scope: Scope) -> Iterator[str]:
        definition = module.definition(name, scope)
        if isinstance(definition, ast.ClassDef):
            yield f"{module.program.module}.{name}"
            for base in definition.bases:
                yield from self.qualified(module, base)
        found = module.lookup(name, scope)
        if found is not None:
            place, bindings = found
            for bound in bindings:
                yield from self.qualified(module, bound.value)
            if not bindings and isinstance(place, Function):
                yield from self._annotated(module, place, name)
        # One name may be both: `TextEmbedding = None` is for machines where the import fails.
        imports = module.imported(name, scope)
        for dotted in imports:
            yield from self._imported(dotted)
        if not (definition or found or imports):
            for star in module.stars:
                if known_package(star.partition(".")[0]):
                    yield f"{star}.{name}"

    def _imported(self, dotted: str) -> Iterator[str]:
        """An imported name; where it is one of this code base, what it is there."""
        yield dotted
        found = self.find(dotted)
        if found is not None and "." not in found[1]:
            yield from self._qualified_name(found[0], found[1], ())

    def _annotated(self, module: Module, function: Function, name: str) -> Iterator[str]:
        annotation = annotation_of(function, name)
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            try:
                parsed: ast.expr = ast.parse(annotation.value, mode="eval").body
            except SyntaxError:
                return
            for part in ast.walk(parsed):
                module.scopes.setdefault(part, ())
            annotation = parsed
        for part in _alternatives(annotation):
            for dotted in self.qualified(module, part):
                yield f"{dotted}()"

    def _qualified_attribute(self, module: Module, node: ast.Attribute) -> Iterator[str]:
        owner = self.own_class(module, node.value)
        if owner is not None:
            for bound in module.attributes.get((owner, node.attr), ()):
                yield from self.qualified(module, bound.value)
        for dotted in self.qualified(module, node.value):
            yield from (self._imported(f"{dotted}.{node.attr}") if "()" not in dotted else [f"{dotted}.{node.attr}"])

    def _element(self, module: Module, of: ast.expr, key: ast.expr) -> Iterator[str]:
        """What a list or a map holds: under a key that is known, or all of it."""
        found = module.lookup(of.id, module.scope(of)) if isinstance(of, ast.Name) else None
        for source in [bound.value for bound in found[1]] if found else [of]:
            chosen = [source]
            if isinstance(source, ast.Dict) and isinstance(key, ast.Constant):
                pairs = zip(source.keys, source.values, strict=True)
                chosen = [value for name, value in pairs if isinstance(name, ast.Constant) and name.value == key.value]
            for part in chosen:
                yield from self.qualified(module, part)

    def own_class(self, module: Module, node: ast.expr, depth: int = 0) -> ast.ClassDef | None:
        """The class of this module that `self`, `cls`, its own name or an instance of it stands for."""
        if depth > _DEEPEST:
            return None
        scope = module.scope(node)
        if isinstance(node, ast.Name):
            if node.id in ("self", "cls"):
                return next((entry for entry in reversed(scope) if isinstance(entry, ast.ClassDef)), None)
            definition = module.definition(node.id, scope)
            if isinstance(definition, ast.ClassDef):
                return definition
            found = module.lookup(node.id, scope)
            made = [bound.value for bound in found[1]] if found else []
            if len(made) == 1 and isinstance(made[0], ast.Call):
                return self.own_class(module, made[0].func, depth + 1)
        if isinstance(node, ast.Call):
            return self.own_class(module, node.func, depth + 1)
        return None

    def _qualified_call(self, module: Module, node: ast.Call) -> Iterator[str]:
        match node:
            # `getattr(package, "Name")` and `importlib.import_module("package")`.
            case ast.Call(func=ast.Name(id="getattr"), args=[ast.expr() as of, ast.Constant(value=str() as name), *_]):
                for dotted in self.qualified(module, of):
                    yield f"{dotted}.{name}"
                return
            case ast.Call(args=[ast.Constant(value=str() as name), *_]) if _ends(node.func, *_IMPORTERS):
                yield name
                return
            case ast.Call(func=ast.Attribute(value=of, attr="get"), args=[key, *_]):
                yield from (dotted for dotted in self._element(module, of, key) if "()" not in dotted)
                return
            case ast.Call(func=ast.Name(id="__import__"), args=[ast.Constant(value=str() as name), *_]):
                yield name
                return
            case _:
                pass
        for dotted in self.qualified(module, node.func):
            yield f"{dotted}()"
        yield from self._returned(module, node)

    def _returned(self, module: Module, node: ast.Call) -> Iterator[str]:
        """What a function of this code base returns, such as a client that it makes."""
        found = self._function(module, node.func)
        if found is not None:
            for part in ast.walk(found[1]):
                if isinstance(part, ast.Return) and part.value is not None:
                    yield from self.qualified(found[0], part.value)

    def _function(self, module: Module, node: ast.expr) -> tuple[Module, Function] | None:
        """The function of this code base that is called: one by its name, or a method of `self`."""
        found: tuple[Module, ast.AST | None] | None = None
        if isinstance(node, ast.Attribute) and (owner := self.own_class(module, node.value)) is not None:
            found = module, module.definitions.get((owner, node.attr))
        elif isinstance(node, ast.Name | ast.Attribute):
            found = self.definition_of(module, node)
        return (found[0], found[1]) if found is not None and isinstance(found[1], Function) else None

    def constructor(self, module: Module, node: ast.expr, depth: int = 0) -> tuple[Module, ast.Call] | None:
        """The call that makes the object which an expression stands for."""
        if depth > _DEEPEST:
            return None
        if isinstance(node, ast.Call):
            return module, node
        bindings: Iterable[Bound] = ()
        if isinstance(node, ast.Name):
            found = module.lookup(node.id, module.scope(node))
            bindings = found[1] if found else ()
        elif isinstance(node, ast.Attribute):
            owner = self.own_class(module, node.value)
            bindings = module.attributes.get((owner, node.attr), ()) if owner else ()
            if not bindings:
                return self.constructor(module, node.value, depth + 1)
        return next((made for bound in bindings if (made := self.constructor(module, bound.value, depth + 1))), None)

    def definition_of(self, module: Module, node: ast.expr) -> tuple[Module, ast.AST] | None:
        """The class or function of this code base that an expression names."""
        if isinstance(node, ast.Name):
            own = module.definition(node.id, module.scope(node))
            if own is not None:
                return module, own
        for dotted in self.qualified(module, node):
            found = self.find(dotted)
            if found is not None and (there := found[0].definition(found[1], ())) is not None:
                return found[0], there
        return None


def embedder_of(names: Iterable[str]) -> str | None:
    """The first of some dotted names that the table knows."""
    return next((dotted for dotted in names if find_callable(dotted) is not None), None)


def keywords_of(call: ast.Call) -> Mapping[str, ast.expr]:
    """The keyword arguments of a call, with those of `**{"a": 1}` and `**dict(a=1)`."""
    found: dict[str, ast.expr] = {}
    for keyword in call.keywords:
        if keyword.arg is not None:
            found[keyword.arg] = keyword.value
        else:
            found |= map_entries(keyword.value)
    return found


def map_entries(node: ast.expr) -> dict[str, ast.expr]:
    """The entries of a map that is written out, `{"a": 1}` or `dict(a=1)`."""
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {k.value: v for k, v in pairs if isinstance(k, ast.Constant) and isinstance(k.value, str)}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        return {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
    return {}


def _any_of(node: ast.expr) -> list[ast.expr]:
    """The expressions that one may stand for: branches, and what a list or a map holds."""
    match node:
        case ast.IfExp():
            return [node.body, node.orelse]
        case ast.BoolOp() | ast.Dict():
            return node.values
        case ast.Tuple() | ast.List() | ast.Set():
            return node.elts
        case _:
            return []


def _ends(node: ast.expr, *names: str) -> bool:
    return (node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")) in names


def _alternatives(annotation: ast.expr | None) -> Iterator[ast.expr]:
    """`A`, both of `A | None`, and `A` of `Optional[A]` and the like."""
    match annotation:
        case ast.BinOp():
            yield from _alternatives(annotation.left)
            yield from _alternatives(annotation.right)
        case ast.Subscript():
            yield from _alternatives(annotation.slice)
        case ast.Name() | ast.Attribute():
            yield annotation
        case _:
            pass
