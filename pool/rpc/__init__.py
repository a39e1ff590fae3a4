"""The pool over gRPC: generated messages, the service, peer check, error table.

grpclib is an asyncio library; `vmpool.wire.crossing` runs it inside trio. All code of that flavour stays here and in
`vmpool.client`. A call's body is trio code, see `calls`. Generated messages stop at `convert`.
"""
