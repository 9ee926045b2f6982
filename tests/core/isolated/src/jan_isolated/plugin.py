from jan_core import Empty, hookimpl, method, methods_of


class Isolated:
    @hookimpl
    def jan_methods(self):
        return methods_of(self)

    @method("isolated.pid")
    def pid(self, params: Empty) -> int:
        """The process this runs in."""
        import os

        return os.getpid()
