"""The pool over gRPC: the services, the server, peer checks, limits, the table of errors.

grpclib is an asyncio library; `vmpool.wire.crossing` runs it inside trio. asyncio code is found only here and in
`vmpool.client`. The body of a call is trio code, see `calls`. Generated messages go no further than `convert`.
"""
