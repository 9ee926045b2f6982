"""Engine builds: what could run here, what is installed, and how a build gets installed.

An engine build is one compiled llama-cpp-python in a directory of its own under `<data>/engines/<build id>/`.
Builds live side by side; a worker process is started with one of them first on its `sys.path`. This package
never imports an engine: whatever has to be asked of native code is asked in a child process (`smoke.py`).
It does not choose between builds that run; `builds.choose` is the default that a hook may overrule.
"""
