"""An extension's code as files: reading it in one go, and importing it under a generation's own name.

Nothing imported before is ever touched. Each generation's modules have names of their own (`jan_hello@g2.plugin`), so a
late import in running old code finds old code, and dropping a generation is dropping those names. The code comes from a
`Snapshot` that was compiled as a whole before the first line of it ran. No bytecode cache is read or written: its key
is the time in whole seconds and the size, so that two quick edits of equal length would load the first one.

This module knows nothing of hooks, manifests or life cycles.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType

import msgspec

__all__ = ["NativeCode", "SelfImport", "Snapshot", "drop", "forget_unions", "qualified", "top"]


class SelfImport(ImportError):
    """A module imports its own package by its absolute name, which is another generation's."""

    def __init__(self, package: str, path: Path, lineno: int) -> None:
        text = f"line {lineno} imports {package} by its absolute name; use a relative import"
        super().__init__(text, name=package, path=str(path))
        self.lineno = lineno


class NativeCode(ImportError):
    """The package holds native modules: a process can load those once."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One Python file. `sha` is of its bytes; `code` is there when the snapshot was compiled."""

    path: Path
    is_package: bool
    sha: bytes
    code: CodeType | None


@dataclass(frozen=True)
class Snapshot:
    """All Python files of a package at one moment, by dotted name inside it (`""` is the package itself).

    `digest` identifies their content and that of the `extra` files (the manifest). Two snapshots of equal digest are
    the same code.
    """

    package: str
    root: Path
    files: Mapping[str, SourceFile]
    digest: str

    @classmethod
    def take(
        cls,
        package: str,
        root: Path,
        extra: Iterable[Path] = (),
        *,
        compiled: bool = True,
        previous: Snapshot | None = None,
    ) -> Snapshot:
        """Read the package in folder `root`; with `compiled`, compile all of it, reusing what `previous` compiled.

        Raises SyntaxError, SelfImport, NativeCode, OSError.
        """
        whole = hashlib.sha256()
        files: dict[str, SourceFile] = {}
        known = {f.sha: f.code for f in previous.files.values()} if previous and previous.root == root else {}
        for name, path in sorted(_modules(root)):
            text = path.read_bytes()
            sha = hashlib.sha256(name.encode() + b"\0" + text).digest()
            whole.update(sha)
            code = (known.get(sha) or _compile(package, path, text)) if compiled else None
            files[name] = SourceFile(path, path.name == "__init__.py", sha, code)
        for path in extra:
            whole.update(path.read_bytes())
        return cls(package, root, files, whole.hexdigest())

    @property
    def compiled(self) -> bool:
        """Whether it can be imported."""
        return all(f.code is not None for f in self.files.values())

    def load(self, name: str, module: str) -> ModuleType:
        """Import `module` (a name inside the package, `""` for itself) with the package called `name`.

        Its siblings come out of this snapshot too, whenever they are imported. Raises whatever the code raises, and
        leaves nothing behind then.
        """
        _FINDER.snapshots[name] = self
        if _FINDER not in sys.meta_path:
            sys.meta_path.insert(0, _FINDER)
        try:
            return importlib.import_module(f"{name}.{module}" if module else name)
        except BaseException:
            drop(name)
            raise


def qualified(package: str, number: int) -> str:
    """A name for the package in generation `number`: `jan_x@g3`, or `jan_x@g3+2` for a second host in this process."""
    name, others = f"{package}@g{number}", 1
    while name in sys.modules or name in _FINDER.snapshots:
        others += 1
        name = f"{package}@g{number}+{others}"
    return name


def top(module: str) -> str:
    """The package that a module belongs to, whatever its generation: `jan_x` for `jan_x@g3.impl`."""
    return module.partition(".")[0].partition("@")[0]


def drop(name: str) -> None:
    """Forget the modules of package `name`, a qualified one or a plain one, and how to find more of them."""
    _FINDER.snapshots.pop(name, None)
    # Other threads import at the same time: the table is copied in one step, and changed entry by entry.
    for module in list(sys.modules):
        if module == name or module.startswith(name + "."):
            sys.modules.pop(module, None)
    forget_unions(lambda kind: kind.__module__ == name or kind.__module__.startswith(name + "."))
    # Python 3.12 before 3.12.4 keeps every class that it has looked at for a Protocol (gh-118013).
    if (kept := getattr(inspect, "_shadowed_dict_from_mro_tuple", None)) is not None:
        kept.cache_clear()


def forget_unions(gone: Callable[[type], bool]) -> None:
    """Make msgspec forget the unions of Structs that have a member which is gone.

    It keeps some it has met, for speed, and has no public way to let one go (`_struct_lookup_cache` in its _core.c).
    """
    unions: dict[frozenset[type], object] = getattr(msgspec._core, "_struct_lookup_cache", {})
    for union in list(unions):
        if any(gone(kind) for kind in union):
            unions.pop(union, None)


def _modules(root: Path) -> Iterator[tuple[str, Path]]:
    for path in root.rglob("*"):
        if path.suffix == ".py":
            parts = path.relative_to(root).with_suffix("").parts
            if not all(map(str.isidentifier, parts)) or path.is_dir():
                continue  # no module: an editor's lock (Emacs' `.#words.py` leads nowhere), a check-point, a template
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path
        elif path.name.endswith(tuple(EXTENSION_SUFFIXES)):
            raise NativeCode(f"{path.name} is native code, which a process can load only once", path=str(path))


def _compile(package: str, path: Path, text: bytes) -> CodeType:
    try:
        tree = ast.parse(text, str(path))
    except SyntaxError as error:
        error.filename = error.filename or str(path)  # of a null byte it does not say where
        raise
    if package.encode() in text:  # a search of bytes spares nearly every file the walk through its tree
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names: Sequence[str] = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            else:
                continue
            if any(name.partition(".")[0] == package for name in names):
                raise SelfImport(package, path, node.lineno)
    return compile(tree, str(path), "exec", dont_inherit=True)


class _Loader(SourceFileLoader):
    """Runs code that is compiled already; finding sources and resources works as for any file."""

    def __init__(self, name: str, path: Path, code: CodeType) -> None:
        super().__init__(name, str(path))
        self._code = code

    def get_code(self, fullname: str) -> CodeType:
        return self._code


class _Finder:
    """Finds the modules of all generations in their snapshots, by the name of their package.

    One for the process, as `sys.modules` is, and never taken out of `sys.meta_path`: an import in another thread that
    is going through that list would miss a finder when an earlier one went.
    """

    def __init__(self) -> None:
        self.snapshots: dict[str, Snapshot] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, inner = fullname.partition(".")
        snapshot = self.snapshots.get(package)
        if snapshot is None:
            return None
        folder = snapshot.root.joinpath(*inner.split(".")) if inner else snapshot.root
        file = snapshot.files.get(inner)
        if file is None or file.code is None:
            if any(name.startswith(inner + ".") for name in snapshot.files):  # a folder without __init__.py
                there = PathFinder.find_spec(fullname, path)
                if there is not None and there.loader is None:  # as Python itself has it: resources are found in it
                    return there
                spec = ModuleSpec(fullname, None, is_package=True)
                spec.submodule_search_locations = [str(folder)]
                return spec
            return None
        return spec_from_file_location(
            fullname,
            file.path,
            loader=_Loader(fullname, file.path, file.code),
            submodule_search_locations=[str(folder)] if file.is_package else None,
        )


_FINDER = _Finder()
