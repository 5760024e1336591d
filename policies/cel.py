"""CEL behind one module: typed compilation, and evaluation in which anything but ``True`` is not a yes.

The engine (cel-expr-python) is young and speaks through three failure channels: compilation raises, evaluation may
raise, and evaluation may return a value of type ERROR. All three end here as one exception each, so that no caller
can mistake a failure for an answer. The iteration budget (10 000 steps) and the recursion limit (32) are the engine's
own and cannot be raised by an expression.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cel_expr_python import cel
from cel_expr_python.ext import ext_math
from google.protobuf import descriptor_pool

from assay.errors import InternalError
from policies import bounds, cel_ast

ENGINE = f"cel-expr-python {importlib.metadata.version('cel-expr-python')}"
MAX_EXPRESSION = 4096
"""Most characters of one expression; a rule states one fact."""

_PLACE = re.compile(r"<input>:(\d+):(\d+): ([^\n]*)")


class CompileError(ValueError):
    """An expression that does not compile against its types.

    Attributes:
        line: 1-based line inside the expression.
        column: 1-based column inside the expression.
    """

    def __init__(self, message: str, line: int = 1, column: int = 1) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


class EvaluationError(InternalError):
    """Evaluation raised, or returned an error, or something other than the type it promised. Always means no."""

    def __init__(self, message: str) -> None:
        super().__init__("POLICY_EVALUATION_FAILED", message)


@dataclass(frozen=True)
class Activation:
    """Variables of one question, bound once and read by every rule."""

    handle: Any = field(repr=False)


@dataclass(frozen=True)
class Expression:
    """A compiled expression.

    Attributes:
        source: the text.
        tree: its checked syntax tree.
        kind: name of its static type, such as ``BOOL``.
    """

    source: str
    tree: cel_ast.Node = field(repr=False)
    kind: str
    handle: Any = field(repr=False, compare=False)

    def names(self) -> frozenset[str]:
        """Variables that it reads, such as ``request`` or ``limits.min_rows``."""
        bound = {n.value for n in self.tree.walk() if n.kind == "comprehension"}
        names = {n.value for n in self.tree.walk() if n.kind == "ident"}
        return frozenset(name for name in names if name not in bound and not name.startswith("@"))

    def value(self, activation: Activation) -> Any:
        """Evaluates to a plain Python value.

        Raises:
            EvaluationError: the engine raised or returned an error value; the text holds no input longer than 200
                characters.
        """
        try:
            result = self.handle.eval(activation.handle)
            if result.type() in (cel.Type.ERROR, cel.Type.UNKNOWN):
                raise EvaluationError(_first_line(str(result.value())))
            return result.plain_value()
        except EvaluationError:
            raise
        except Exception as error:
            raise EvaluationError(_first_line(str(error))) from error

    def holds(self, activation: Activation) -> bool:
        """True only if the expression evaluated to the boolean ``True``.

        Raises:
            EvaluationError: it evaluated to anything that is not a boolean, or not at all.
        """
        answer = self.value(activation)
        if answer is True or answer is False:
            return bool(answer)
        raise EvaluationError(f"the rule answered with a {type(answer).__name__}")


@dataclass(frozen=True)
class Environment:
    """The typed variables that one kind of rule may read."""

    variables: Mapping[str, str]
    handle: Any = field(repr=False, compare=False)

    @classmethod
    def of(cls, variables: Mapping[str, str]) -> Environment:
        """Declares variables by CEL type name, such as ``int``, ``list<string>`` or ``assay.v1.RequestFacts``.

        Message types must have been imported, so that the default descriptor pool knows them.
        """
        types = {name: cel.Type(_type_name(kind)) for name, kind in variables.items()}
        pool = descriptor_pool.Default()
        handle = cel.NewEnv(pool, variables=types, container="assay.v1", extensions=[ext_math.ExtMath()])
        return cls(dict(variables), handle)

    def compile(self, source: str, *, cap: bool = True) -> Expression:
        """Compiles and type-checks; ``cap`` refuses what is longer than a rule may be, or may take too much memory.

        Raises:
            CompileError: with line and column inside ``source``.
        """
        if cap and len(source) > MAX_EXPRESSION:
            raise CompileError(f"longer than {MAX_EXPRESSION} characters; a rule states one fact")
        try:
            handle = self.handle.compile(source)
        except RuntimeError as error:
            found = _PLACE.search(str(error))
            if found is None:
                raise CompileError(_first_line(str(error))) from error
            raise CompileError(found[3].strip(), int(found[1]), int(found[2])) from error
        tree = cel_ast.decode(handle.serialize())
        if cap and (built := bounds.most_built(tree)) > bounds.MAX_BUILT:
            most = bounds.MAX_BUILT >> 20
            raise CompileError(f"may build {built / (1 << 20):,.0f} MiB of texts and lists; at most {most} are allowed")
        return Expression(source, tree, handle.return_type().name(), handle)

    def bind(self, values: Mapping[str, Any]) -> Activation:
        """Binds a value to every declared variable; one left out makes each rule that reads it fail."""
        return Activation(self.handle.Activation(dict(values)))


def _type_name(kind: str) -> str:
    return kind.replace(" ", "")


def _first_line(text: str) -> str:
    line = text.strip().split("\n", 1)[0]
    return line if len(line) <= 200 else line[:197] + "..."
