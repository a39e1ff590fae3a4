"""The process that forks, confines and executes QEMU.

A service with threads and much memory should not fork and then run Python, and a new program for each VM would cost its
start each time. So one small process runs beside the service: it gets its requests over a socket, and each QEMU that it
starts is a child of the service, as if the service had started it. It loads only a little of the standard library,
because each fork copies the page tables of its memory.

`protocol` is shared by both sides, `client` is the service's side; the rest is the process itself.
"""
