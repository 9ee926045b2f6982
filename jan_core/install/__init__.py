"""Third-party packages beside the product: resolved with `uv`, laid into numbered overlays, switched by a pointer.

    overlay.py    the numbered folders, their records, the pointer, and what a process does with them when it starts
    packages.py   what lies in a folder of packages: whose files, whole or damaged, which extensions
    request.py    what a person asked for, as a requirement
    resolve.py    what `uv` is asked: build, plan, fetch; and what its refusals mean
    command.py    runs a program with no orphan, whatever happens; `lock.py`: one installer at a time
    proposal.py   the next overlay, filled and checked off to the side; `claims.py`: it takes nobody's id or prefix
    smoke.py      loads it in a child process (`probe.py`)
    installer.py  install, uninstall, undo, repair: from a request to the switch; `threads.py`: what must not stop
    takeover.py   a running host goes over to another overlay
    report.py     the overlays as a person sees them: rows, and what is wrong
    methods.py    the methods of all this

It is not a package manager: it resolves nothing itself. It never changes the product's own packages, and it is no
sandbox: an extension is code of this process.
"""
