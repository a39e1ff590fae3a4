"""What the pool decides, and how it is reached.

`ledger` decides, purely; `coordinator` acts on its decisions; `rpc` is the wire, `client` and `cli` its users.
"""
