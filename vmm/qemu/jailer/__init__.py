"""The process that forks, confines and executes QEMU.

A service with threads and much memory is not the one to fork and then run Python, and a program of its own for each VM
would cost its start each time. So there is one small process beside the service: it is told what to start by a socket,
and each QEMU that it starts is a child of the service, as if that had started it. It has the standard library only, of
which it loads little: what it has in memory, each fork copies the page tables of.

`protocol` is what both sides know, `client` the service's side; the rest is the process itself.
"""
