"""VMCache: its gRPC service, its client, and the layer of the service that serves it."""
